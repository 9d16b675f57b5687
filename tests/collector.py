"""An OpenTelemetry collector for tests: receives OTLP over HTTP, and keeps the spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """What was sent."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.services: set[str] = set()
        self.processes: set[int] = set()
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.paths.add(self.path)
                collector.keep(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def keep(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            named = {one.key: one.value for one in group.resource.attributes}
            self.services.add(named["service.name"].string_value)
            self.processes.add(named["process.pid"].int_value)
            for scope in group.scope_spans:
                self.spans.extend(scope.spans)

    def traces(self) -> dict[str, tuple[Span, list[Span]]]:
        """By id, the span of the request, and its children in the order of their start."""
        found: dict[str, tuple[Span, list[Span]]] = {}
        for span in self.spans:
            if span.kind == Span.SPAN_KIND_SERVER:
                assert span.trace_id.hex() not in found
                found[span.trace_id.hex()] = span, []
        for span in sorted(self.spans, key=lambda one: one.start_time_unix_nano):
            if span.kind != Span.SPAN_KIND_SERVER:
                parent, children = found[span.trace_id.hex()]
                assert span.parent_span_id == parent.span_id
                children.append(span)
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    receiving = threading.Thread(target=collector.server.serve_forever)
    receiving.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        receiving.join()
        collector.server.server_close()


def attributes(span: Span) -> dict[str, str | int | bool]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
