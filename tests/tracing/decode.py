"""What OpenTelemetry's own library reads in what a collector was sent: base64 in, JSON out, by line."""

import base64
import json
import sys

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


for line in sys.stdin:
    request = ExportTraceServiceRequest.FromString(base64.b64decode(line))
    # A field that the library does not know would be one that we invented.
    assert ExportTraceServiceRequest.FromString(request.SerializeToString()) == request
    request.DiscardUnknownFields()
    assert len(request.SerializeToString()) == len(base64.b64decode(line)), "unknown fields"
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                print(json.dumps({
                    "resource": attributes(resource.resource.attributes),
                    "scope": scope.scope.name,
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": Span.SpanKind.Name(span.kind),
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "status": Status.StatusCode.Name(span.status.code),
                    "attributes": attributes(span.attributes),
                }), flush=True)
