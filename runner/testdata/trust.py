"""Starts an HTTPS server with the certificate server.txt, has every tool fetch from it, with the sandbox's variables and
without, and prints what came of it."""

import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    """A page, and a git repository of the dumb protocol with one branch."""

    def do_GET(self):
        path = self.path.split("?")[0]
        body = b"fine\n"
        if path.endswith("/info/refs"):
            body = b"1" * 40 + b"\trefs/heads/main\n"
        elif path.endswith("/HEAD"):
            body = b"ref: refs/heads/main\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.txt")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"https://localhost:{server.server_port}/"

fetch_js = """fetch(process.argv[1]).then(r => r.text()).then(t => process.stdout.write(t),
    e => { console.error(e.cause ? e.cause.message : e.message); process.exit(1) })"""
https_js = """require('https').get(process.argv[1], r => r.pipe(process.stdout))
    .on('error', e => { console.error(e.message); process.exit(1) })"""
tools = {
    "curl": ["curl", "-sS", "--fail", url],
    "git": ["git", "ls-remote", url + "repo"],
    "python": [sys.executable, "-c", "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read())", url],
    "node fetch": ["node", "-e", fetch_js, url],
    "node https": ["node", "-e", https_js, url],
    "wget": ["wget", "-q", "-nv", "-O", "-", url],
    "openssl": ["openssl", "s_client", "-verify_return_error", "-connect", f"localhost:{server.server_port}"],
}
mine = "/run/agent-sandbox/"
bare = {k: v for k, v in os.environ.items() if mine not in v}
answers = []
for name, command in tools.items():
    if not shutil.which(command[0]):
        continue
    with_them = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    without = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=bare)
    answers.append(
        {
            "tool": name,
            "trusting": with_them.returncode,
            "without": without.returncode,
            "output": (with_them.stdout + with_them.stderr)[-2000:],
            "error": (without.stdout + without.stderr)[-2000:],
        }
    )
json.dump(answers, sys.stdout)
