"""Foldserve's service: answers predictions from the ONNX models of a repository.

Imports nothing of the converter, nor torch, onnx or keras.
"""
