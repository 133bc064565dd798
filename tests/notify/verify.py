"""What libraries of the standards say of notifications: `verify.py SECRET`, a line of JSON each."""

import base64
import json
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(sys.argv[1])
for line in sys.stdin:
    given = json.loads(line)
    body = base64.b64decode(given["body"])
    webhook.verify(body, given["headers"])
    try:
        webhook.verify(body + b" ", given["headers"])
        raise SystemExit("a changed body was taken")
    except WebhookVerificationError:
        pass
    event = from_structured_event(HTTPMessage(headers=given["headers"], body=body), JSONFormat())
    print(json.dumps({"type": event.get_type(), "subject": event.get_subject(),
                      "to": event.get_data()["facts"]["to"]}), flush=True)
