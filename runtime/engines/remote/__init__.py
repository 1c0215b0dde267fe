"""An engine behind a server that speaks KServe's protocol, version 2: Triton, OpenVINO Model Server, KServe."""
