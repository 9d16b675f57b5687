"""ONNX Runtime as it is used here: on one core of the CPU."""

import onnxruntime

_FATAL = 4
# Slower than the two nodes that it replaces.
_SLOW_FUSIONS = ["SkipLayerNormFusion"]


def one_core_session(graph: bytes) -> onnxruntime.InferenceSession:
    """A session that several threads may call.

    Raises:
        Exception: of one of ONNX Runtime's classes, none of them public, when it refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    return onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOW_FUSIONS
    )
