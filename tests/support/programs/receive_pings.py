"""Receive pings on port 8000, and note the path and body of each in /root/pings, a line each.

Prints `listens` once it does, and never ends.
"""

import http.server


class _Pinged(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with open("/root/pings", "a") as file:
            print(self.path, body.replace("\n", " | "), file=file)
        self.send_response(200)
        self.end_headers()


def main() -> None:
    server = http.server.HTTPServer(("127.0.0.1", 8000), _Pinged)
    print("listens", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
