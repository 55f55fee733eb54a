"""The benchmark behind tools/benchmark.py: both sides in processes of their own. Only what a side measures with is
imported there, so that a machine without TensorFlow, or a peer without Keras, runs its part."""
