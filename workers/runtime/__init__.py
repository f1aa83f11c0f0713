"""Running exported models with ONNX Runtime: graphs, batches, the cache of exports. Serving needs no torch."""
