"""What the float64 oracle does not cover, op by op: the source of a page of the documentation.

A sweep in the tests runs every op of opsets 11 to 23 that onnxruntime's CPU provider runs against
the oracle. It fails for an op that neither has a case nor is listed here.
"""

from __future__ import annotations

_DRAWS = "It draws its numbers itself, others in each run: its outputs are named, not measured."

# Op -> why nothing is computed for it in float64.
WITHOUT: dict[str, str] = {
    **dict.fromkeys(
        ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
         "RandomUniformLike"),
        _DRAWS,
    ),
    **dict.fromkeys(
        ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
        "It works on strings or counts of words: no float is rounded before it.",
    ),
    "ImageDecoder": "onnxruntime's CPU provider has no kernel for it.",
    "MaxRoiPool": "Its rounding of regions is not fixed by the standard; RoiAlign took its place.",
}  # fmt: skip

# Op -> where onnxruntime and the standard differ, and which of them the oracle follows.
DIFFERENT: dict[str, str] = {
    "Dropout": "Before opset 12 onnxruntime's mask is false where the standard's is true; the "
    "standard is followed. The numbers are the same.",
    "QLinearConv": "onnxruntime rounds in float32: where a sum lies between two integers it may "
    "take the other one.",
}
