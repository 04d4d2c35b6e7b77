"""Ways from an ONNX file to an engine: each probed and run in a process of its own."""
