"""Several hosts on one machine, as far as Linux namespaces make them: for tests on real Ray nodes.

    python -m tests.cluster.hosts       # needs root; Ctrl-C takes them down

Each host has its own network (an address on a bridge, host names as Debian writes them, a second
interface that leads nowhere), processes, /tmp and /dev/shm. They share the machine's file system
beneath that, so also the Python environment, and /mnt, where they are told to. Nothing is left
behind: namespaces without a name end with their last process, and every host's first process ends
with the one that started it, however that ends.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
NET = "10.77.0"
GATEWAY = f"{NET}.1"
ADDRESSES = {"head": 10, "one": 11, "two": 12, "desk": 20, "services": 30}
SHARING = ("head", "one", "two")  # the hosts that see the shared folder at /mnt
TOOLS = ("ip", "ss", "unshare", "nsenter", "setpriv")
SWITCH = (
    f"set -e; ip link set lo up; ip link add br0 type bridge; ip addr add {GATEWAY}/24 dev br0; "
    # With forwarding on, what leads out of the bridge is refused at once instead of being dropped.
    "ip link set br0 up; echo 1 >/proc/sys/net/ipv4/ip_forward; "
)
STAY = "exec env --ignore-signal=CHLD sleep infinity"  # ignored, children are reaped


class NoNamespaces(RuntimeError):
    """This machine or this user may not make namespaces; the message says what failed."""


@dataclass
class Host:
    """One host: its first process, outside and as it is seen from this machine."""

    name: str
    address: str
    outer: subprocess.Popen[bytes]
    first: int
    tmp: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, words: Sequence[object], env: Mapping[str, str], cwd: str) -> list[str]:
        """The words that run `words` in this host, with this environment alone."""
        enter = ["nsenter", "-t", str(self.first), "-n", "-m", "-p", "-u", "-i", "env", "-i"]
        variables = [f"{key}={value}" for key, value in {**CLEAN, **env}.items()]
        inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', cwd, *(str(word) for word in words)]
        return [*enter, *variables, *inside]

    def run(
        self, words: Sequence[object], *, env: Mapping[str, str] | None = None, cwd: str = "/tmp",
        seconds: float = 300, check: bool = True,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run to the end; what it said, both streams together."""
        done = subprocess.run(
            self.command(words, env or {}, cwd), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, timeout=seconds, errors="replace",
            start_new_session=True,  # as if it came from another machine
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"{self.name}: {words} ended with {done.returncode}\n{done.stdout}"
            )
        return done

    def start(
        self, words: Sequence[object], *, env: Mapping[str, str] | None = None, cwd: str = "/tmp",
        log: Path | None = None,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """Start and go on; it ends with the host at the latest."""
        path = log or self.tmp / f"{Path(str(words[0])).name}-{len(self.started)}.log"
        with path.open("w") as file:
            process = subprocess.Popen(
                self.command(words, env or {}, cwd),
                stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def await_port(self, port: int, seconds: float = 120) -> None:
        """Return when something listens there on this host's address or on all."""
        look = ["nsenter", "-t", str(self.first), "-n", "ss", "-Htln", f"sport = :{port}"]
        deadline = time.monotonic() + seconds
        while not subprocess.run(look, capture_output=True, timeout=20).stdout:
            assert time.monotonic() < deadline, f"nothing listens at {self.address}:{port}"
            time.sleep(0.2)

    def processes(self) -> list[str]:
        """The command lines of all processes of this host."""
        found = []
        for process in psutil.Process(self.first).parent().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found.append(" ".join(process.cmdline()))
        return found

    def link(self, up: bool) -> None:
        """Plug the network cable in, or pull it."""
        state = "up" if up else "down"
        enter = ["nsenter", "-t", str(self.first), "-n"]
        _do([*enter, "ip", "link", "set", "eth0", state])
        if up:  # which went with the link
            _do([*enter, "ip", "route", "replace", "default", "via", GATEWAY])

    def end(self) -> None:
        """All processes at once, as a power cut does; the network interface goes with them."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.first, signal.SIGKILL)
        self.outer.wait(timeout=30)
        for process in self.started:
            process.wait(timeout=30)


# What a shell that nobody prepared has: nothing activated.
CLEAN = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp/home",
    "LANG": "C.UTF-8",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass
class Network:
    """The bridge and the hosts on it."""

    folder: Path
    switch: subprocess.Popen[bytes]
    hosts: dict[str, Host] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    @property
    def shared(self) -> Path:
        """The folder that the nodes have at /mnt, as this machine sees it."""
        return self.folder / "shared"

    def boot(self, name: str) -> Host:
        """Start a host, for the first time or again; its /tmp is as new."""
        home = self.folder / name
        shutil.rmtree(home, ignore_errors=True)
        tmp = home / "tmp"
        (tmp / "home").mkdir(parents=True)
        tmp.chmod(0o1777)
        (home / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        outer = _spawn(
            ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
             "--mount-proc", "/bin/sh", "-c", self._first_words(name, home)]
        )  # fmt: skip
        address = f"{NET}.{ADDRESSES[name]}"
        try:
            first = _child(outer)
            _wait_for(home / "ready", outer)
            self._connect(name, first, address)
        except BaseException:
            outer.kill()
            raise
        self.hosts[name] = host = Host(name, address, outer, first, tmp)
        return host

    def _first_words(self, name: str, home: Path) -> str:
        tmp = home / "tmp"
        lines = ["set -e", f"hostname {name}", f"mount --bind {q(home / 'hosts')} /etc/hosts"]
        # What a test run needs may itself lie in /tmp, which is about to be covered.
        for path in {ROOT, Path(sys.prefix), Path(sys.base_prefix)}:
            if path.is_relative_to("/tmp"):
                lines.append(f"mkdir -p {q(tmp / path.relative_to('/tmp'))}")
                lines.append(f"mount --rbind {q(path)} {q(tmp / path.relative_to('/tmp'))}")
        if name in SHARING:
            lines.append(f"mount --bind {q(self.shared)} /mnt")
        lines.append("mount -t tmpfs -o size=2g tmpfs /dev/shm")
        # Opened before /tmp, where it lies, is covered.
        lines += [f"exec 9>{q(home / 'ready')}", f"mount --rbind {q(tmp)} /tmp"]
        lines += ["ip link set lo up", "echo ready >&9", "exec 9>&-", STAY]
        return "\n".join(lines)

    def _connect(self, name: str, first: int, address: str) -> None:
        cable = f"c-{name}"
        inside, switch = str(first), str(self.switch.pid)
        # The kernel takes the cable of a host that has ended away in its own time.
        gone = ["nsenter", "-t", switch, "-n", "ip", "link", "del", cable]
        subprocess.run(gone, capture_output=True, timeout=20)
        _do(
            ["nsenter", "-t", switch, "-n", "ip", "link", "add", cable, "type", "veth",
             "peer", "name", "eth0", "netns", inside]
        )  # fmt: skip
        _do(["nsenter", "-t", switch, "-n", "ip", "link", "set", cable, "master", "br0", "up"])
        enter = ["nsenter", "-t", inside, "-n", "ip"]
        _do([*enter, "addr", "add", f"{address}/24", "dev", "eth0"])
        _do([*enter, "link", "set", "eth0", "up"])
        _do([*enter, "route", "add", "default", "via", GATEWAY])
        # As where Docker is installed: the same address on every host, and it leads nowhere.
        _do([*enter, "link", "add", "docker0", "type", "bridge"])
        _do([*enter, "addr", "add", "172.17.0.1/16", "dev", "docker0"])
        _do([*enter, "link", "set", "docker0", "up"])


@contextlib.contextmanager
def network(names: Sequence[str] = tuple(ADDRESSES)) -> Iterator[Network]:
    """The hosts, booted; gone with the block. NoNamespaces where this machine does not allow it."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise NoNamespaces(f"{', '.join(missing)} missing; apt-get install iproute2 util-linux")
    if os.geteuid():
        raise NoNamespaces("namespaces for network, mounts and processes need root")
    for left in Path(tempfile.gettempdir()).glob("hosts-*-*"):  # by a run that was killed
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=f"hosts-{os.getpid()}-"))
    folder.chmod(0o755)
    (folder / "shared").mkdir()
    flag = folder / "switch"
    words = f"{SWITCH} echo ready >{q(flag)}; {STAY}"
    switch = _spawn(["unshare", "--net", "/bin/sh", "-c", words])
    net = Network(folder, switch)
    try:
        _wait_for(flag, switch)
        for name in names:
            net.boot(name)
        yield net
    finally:
        for host in net.hosts.values():
            host.end()
        switch.kill()
        switch.wait(timeout=30)
        shutil.rmtree(folder)


def q(path: Path) -> str:
    """The path as a word of a shell."""
    return shlex.quote(str(path))


def _spawn(words: list[str]) -> subprocess.Popen[bytes]:
    """Started so that it ends with this process, also when this one is killed."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *words], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def _child(outer: subprocess.Popen[bytes]) -> int:
    """The one child of `unshare --fork`: the host's first process."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and outer.poll() is None:
        if children := psutil.Process(outer.pid).children():
            return int(children[0].pid)
        time.sleep(0.01)
    raise NoNamespaces(_reason(outer))


def _wait_for(flag: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while not (flag.exists() and flag.stat().st_size):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NoNamespaces(_reason(process))
        time.sleep(0.01)


def _reason(process: subprocess.Popen[bytes]) -> str:
    process.kill()
    said = process.communicate(timeout=20)[1].decode(errors="replace").strip()
    return f"this machine does not allow namespaces: {said or 'no word of why'}"


def _do(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise NoNamespaces(f"{' '.join(words)}: {done.stderr.strip()}")


def main() -> int:
    """Bring the hosts up and wait."""
    with network() as net:
        for host in net.hosts.values():
            print(f"{host.name:9} {host.address}  nsenter -t {host.first} -n -m -p -u -i")
        print(f"the nodes' /mnt is {net.shared}; Ctrl-C takes all down", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
