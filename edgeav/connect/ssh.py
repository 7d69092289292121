"""A device over SSH (asyncssh, https://asyncssh.readthedocs.io): keys only, and only hosts that known_hosts has.

~/.ssh/config is not read: what an address means stands in the device file alone. The event loop runs in a thread of its
own, so that the callers are plain functions, and several devices can be spoken to at once.
"""

from __future__ import annotations

import asyncio
import getpass
import shlex
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from edgeav.connect import GET, PUT, Done, Dropped, shell
from edgeav.connect.address import Address
from edgeav.connect.local import TRANSFER_S
from edgeav.errors import EdgeavError, needs

LOGIN_S = 30
KEEPALIVE_S, KEEPALIVES = 10, 3  # a connection that answers nothing for half a minute is dead
T = TypeVar("T")


class Ssh:
    """One connection; commands run in the user's home."""

    def __init__(self, address: Address, key: str | None, known_hosts: str | None) -> None:
        self.where = f"{address.user or getpass.getuser()}@{address.host}:{address.port}"
        self._known_hosts = Path(known_hosts or "~/.ssh/known_hosts").expanduser()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name=f"ssh {self.where}")
        self._thread.start()
        try:
            self._connection = self._wait(self._open(address, key), LOGIN_S + 5)
        except BaseException:
            self._stop()
            raise

    def run(self, command: Sequence[str], timeout_s: float = 60, tethered: bool = False) -> Done:
        return self._finish(command, timeout_s, {} if tethered else {"stdin": asyncio.subprocess.DEVNULL})

    def put(self, local: Path, remote: str) -> Done:
        return self._finish(shell(PUT, remote), TRANSFER_S, {"stdin": str(local)})

    def get(self, remote: str, local: Path) -> Done:
        streams = {"stdin": asyncio.subprocess.DEVNULL, "stdout": str(local)}
        return self._finish(shell(GET, remote), TRANSFER_S, streams)

    @contextmanager
    def hold(self, command: Sequence[str]) -> Iterator[str]:
        process = self._wait(self._connection.create_process(shlex.join(command)), LOGIN_S)
        try:
            yield self._wait(process.stdout.readline(), TRANSFER_S)
        finally:
            self._loop.call_soon_threadsafe(process.stdin.write_eof)
            self._loop.call_soon_threadsafe(process.close)

    def close(self) -> None:
        """Commands that other threads wait for end with Dropped."""
        self._loop.call_soon_threadsafe(self._connection.close)
        self._stop()

    def _finish(self, command: Sequence[str], timeout_s: float, streams: dict[str, Any]) -> Done:
        running = self._connection.run(shlex.join(command), check=False, encoding=None, **streams)
        done = self._wait(running, timeout_s)
        if done.returncode is None:
            raise self._dropped("it closed before the command ended")
        return Done.of(done.returncode, done.stdout, done.stderr)

    async def _open(self, address: Address, key: str | None) -> Any:
        asyncssh = _asyncssh()
        keys = [str(Path(key).expanduser())] if key else ()  # (): those of the agent and of ~/.ssh
        return await asyncssh.connect(
            address.host,
            address.port,
            username=address.user or getpass.getuser(),
            client_keys=keys,
            known_hosts=str(self._known_hosts) if self._known_hosts.is_file() else b"",  # None would trust anybody
            config=None,
            password=None,
            preferred_auth="publickey",
            login_timeout=LOGIN_S,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVES,
        )

    def _wait(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """The result of a coroutine on our loop, its errors in our words."""
        asyncssh = _asyncssh()
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise self._dropped("it was closed before the command ended") from None
        except TimeoutError:
            raise EdgeavError(f"{self.where} gave no answer in {timeout_s:g} s; the command was stopped") from None
        except asyncssh.HostKeyNotVerifiable:
            raise EdgeavError(self._stranger()) from None
        except asyncssh.PermissionDenied as error:
            raise EdgeavError(
                f"{self.where} refused the login: {error.reason}. Passwords are not used: copy your public key there "
                "(ssh-copy-id), or name another one with `key:` in the device file."
            ) from None
        except asyncssh.KeyImportError as error:
            raise EdgeavError(f"{self.where}: the key cannot be read: {error}") from None
        except (asyncssh.Error, BrokenPipeError, ConnectionError, OSError) as error:
            raise self._dropped(str(error) or type(error).__name__) from error

    def _dropped(self, why: str) -> Dropped:
        return Dropped(f"{self.where}: no connection: {why}")

    def _stranger(self) -> str:
        host, _, port = self.where.partition("@")[2].rpartition(":")
        return (
            f"{self.where} shows a host key that {self._known_hosts} does not vouch for: it may be another machine.\n"
            f"If you trust this network: ssh-keyscan -p {port} {shlex.quote(host)} >> "
            f"{shlex.quote(str(self._known_hosts))}\n"
            "and compare the fingerprint with the device's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)."
        )

    def _stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(5)

    async def _end(self) -> None:
        """Stop the loop once nobody waits for it: a task left behind would keep its caller waiting for ever."""
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        self._loop.stop()


def _asyncssh() -> Any:
    try:
        import asyncssh
    except ModuleNotFoundError as error:
        raise needs("devices", "asyncssh") from error
    return asyncssh
