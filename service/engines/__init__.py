"""Which of the engines that are installed runs a model: measured when it is loaded.

table     the engines, a row each
openvino  the plug-in of onnxruntime behind three of them
budget    how far an engine may be off, and who says so
trial     what is measured of each
choice    from the measurements to the one that serves, and why not the others
memory    what was chosen before for the same file on the same machine
pick      all of it, for one model
"""
