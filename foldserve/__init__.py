"""The command `foldserve`: hands over to the converter (`fold`, ...) or the service (`serve`)."""
