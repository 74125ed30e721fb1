"""A mail server for tests: STARTTLS is required, each mail is printed as one line of JSON. It ends
with its standard input.

    server.py CERTIFICATE KEY
"""

import json
import socket
import ssl
import sys
from email import message_from_bytes, policy

from aiosmtpd.controller import Controller


class Printer:
    async def handle_DATA(self, server, session, envelope):
        mail = message_from_bytes(envelope.content, policy=policy.default)
        say(
            {
                "to": envelope.rcpt_tos,
                "subject": mail["subject"],
                "id": mail["message-id"],
                "automatic": mail["auto-submitted"],
                "plain": mail.get_body(("plain",)).get_content(),
                "html": mail.get_body(("html",)).get_content(),
                "secured": session.ssl is not None,
            }
        )
        return "250 OK"


def say(value):
    print(json.dumps(value), flush=True)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:3])
# The controller asks at its port whether it answers, so it must be told one.
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
controller = Controller(
    Printer(),
    hostname="127.0.0.1",
    port=port,
    ready_timeout=30,
    tls_context=context,
    require_starttls=True,
)
controller.start()
say({"port": port})
# Whoever started it holds the other end.
sys.stdin.read()
