"""A gRPC server with the four kinds of call; messages are plain bytes, so no compiler is needed."""
import sys
from concurrent import futures

import grpc


def abort(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing there")


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: b"hello " + request),
    "Down": grpc.unary_stream_rpc_method_handler(lambda request, context: (request + b"%d" % i for i in range(3))),
    "Up": grpc.stream_unary_rpc_method_handler(lambda requests, context: b"+".join(requests)),
    "Both": grpc.stream_stream_rpc_method_handler(lambda requests, context: (b"echo " + r for r in requests)),
    "Missing": grpc.unary_unary_rpc_method_handler(abort),
}

server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("peer.Greeter", METHODS)])
with open("/certs/server.key", "rb") as key, open("/certs/server.pem", "rb") as pem:
    credentials = grpc.ssl_server_credentials([(key.read(), pem.read())])
server.add_secure_port(f"127.0.0.1:{sys.argv[1]}", credentials)
server.start()
server.wait_for_termination()
