"""Python: processes with semaphores and shared memory, asyncio, a pseudo-terminal, ptys' sizes, and what ss says of a server."""
import asyncio
import multiprocessing
import pty
import socket
import subprocess
from multiprocessing import shared_memory


def square(n):
    return n * n


async def slow():
    proc = await asyncio.create_subprocess_exec("true")
    return await proc.wait()


if __name__ == "__main__":
    with multiprocessing.Pool(4) as pool:
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    shared = shared_memory.SharedMemory(create=True, size=4096)
    shared.close()
    shared.unlink()
    assert asyncio.run(slow()) == 0
    assert pty.spawn(["stty", "rows", "40", "cols", "100"]) == 0
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    listing = subprocess.run(["ss", "-ltnp"], capture_output=True, text=True, check=True).stdout
    assert f":{port}" in listing and "python3" in listing, listing
    print("python works")
