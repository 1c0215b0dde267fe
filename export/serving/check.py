"""A model's configuration held against Triton's published schema, where the package that has it is installed."""

from runtime.common.errors import UserError


def check_config(text: str) -> bool:
    """Return whether `text` was checked against the message `ModelConfig` that tritonclient carries.

    Raises `UserError` where it is none.
    """
    try:
        from google.protobuf import text_format  # type: ignore[import-untyped]
        from tritonclient.grpc import model_config_pb2
    except ImportError:
        return False
    try:
        text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise UserError("config.pbtxt must be a ModelConfig of Triton", " ".join(str(error).split())) from None
    return True
