"""The launcher's decisions, on a machine made of stand-ins: no root, no network, no apt."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What the launcher takes from the machine and may find there; everything else has to be a stand-in.
REAL_COMMANDS = ("bash", "sh", "cat", "chmod", "cp", "cut", "dirname", "env", "find", "flock", "getent", "grep", "ls",
                 "mkdir", "mv", "readlink", "rm", "sed", "setsid", "sha256sum", "sleep", "sort", "tail", "touch",
                 "true")

APT_GET = """#!/bin/sh
echo "apt-get $*" >>"$MACHINE/calls"
case "$*" in
    *" update") [ ! -e "$MACHINE/offline" ] || { echo "Temporary failure resolving"; exit 100; } ;;
    *--download-only*)
        [ ! -e "$MACHINE/offline" ] || { echo "E: Unable to fetch"; exit 100; }
        [ ! -e "$MACHINE/no-universe" ] || { echo "E: Unable to locate package mininet"; exit 100; } ;;
    *install*)
        if [ -e "$MACHINE/policy-rc.d" ]; then
            "$MACHINE/policy-rc.d" openvswitch-switch start; echo "policy says $?" >>"$MACHINE/calls"
        fi
        touch "$MACHINE/unpacking"
        [ ! -e "$MACHINE/slow" ] || sleep 1
        for tool in mnexec ovs-vswitchd; do cp "$MACHINE/bin/true" "$MACHINE/bin/$tool"; done
        touch "$MACHINE/ensurepip" "$MACHINE/mininet"
        echo "apt-get has finished" >>"$MACHINE/calls" ;;
esac
"""

PYTHON = """#!/bin/sh
for last in "$@"; do :; done
case "$*" in
    *"import ensurepip"*) [ -e "$MACHINE/ensurepip" ]; exit ;;
    *"import mininet'"*|*"import mininet") [ -e "$MACHINE/mininet" ]; exit ;;
    *sysconfig*) mkdir -p "$MACHINE/site"; echo "$MACHINE/site"; exit ;;
esac
echo "python $*" >>"$MACHINE/calls"
case "$*" in
    *"-m venv"*)
        [ ! -e "$MACHINE/stuck" ] || { sleep 60 9>&- & echo $! >"$MACHINE/grandchild"; wait; }
        mkdir -p "$last/bin"; cp "$MACHINE/python3" "$last/bin/python" ;;
    *"-m pip"*) [ ! -e "$MACHINE/offline" ] || { echo "No matching distribution"; exit 1; } ;;
    *experiments.cli*) echo "ran: $last"; exit "${CLI_STATUS:-0}" ;;
esac
"""


class Machine:
    """A checkout with the launcher in it, and a PATH on which every command that matters is a stand-in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.checkout = directory / "checkout"
        self.venv = self.checkout / ".venv"
        self.policy = directory / "policy-rc.d"
        (directory / "bin").mkdir()
        self.checkout.mkdir()
        shutil.copy(ROOT / "e3", self.checkout)
        shutil.copy(ROOT / "requirements.lock", self.checkout)
        (directory / "certificates").write_text("some")
        (directory / "os-release").write_text('ID=debian\nPRETTY_NAME="Some Linux 7"\n')
        for name in REAL_COMMANDS:
            found = shutil.which(name)
            assert found is not None, name
            (directory / "bin" / name).symlink_to(found)
        self.stand_in("apt-get", APT_GET)
        self.stand_in("../python3", PYTHON)
        for name in ("update-rc.d", "service", "dpkg"):
            self.stand_in(name, f'#!/bin/sh\necho "{name} $*" >>"$MACHINE/calls"\n')
        self.stand_in("setpriv", '#!/bin/sh\necho "setpriv $*" >>"$MACHINE/calls"\nshift 3\nexec "$@"\n')
        self.user(0)
        self.owner(0)

    def stand_in(self, name: str, script: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    def user(self, uid: int) -> None:
        self.stand_in("id", f"#!/bin/sh\necho {uid}\n")

    def owner(self, uid: int) -> None:
        self.stand_in("stat", f"#!/bin/sh\necho {uid} {uid}\n")

    def given(self, *names: str) -> None:
        for name in names:
            (self.directory / name).touch()

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        m = self.directory
        script = (
            f"source {self.checkout}/e3; PATH={m}/bin; system_python={m}/python3; os_release={m}/os-release; "
            f"policy={self.policy}; certificates={m}/certificates; "
            'tools=(mnexec:mininet ovs-vswitchd:openvswitch-switch); main "$@"'
        )
        return subprocess.Popen(
            ["bash", "-c", script, "e3", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"PATH": f"{m}/bin", "MACHINE": str(m), **environment}, cwd=m)

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def calls(self) -> list[str]:
        """Return what the stand-ins were asked since the last time."""
        path = self.directory / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return lines

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 10
        while not (self.directory / name).exists():
            assert time.monotonic() < deadline, f"{name} did not appear"
            time.sleep(0.01)


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    """A machine on which nothing is installed; the user is root and owns the checkout."""
    return Machine(tmp_path)


@pytest.fixture
def ready(bare: Machine) -> Machine:
    assert bare.run("setup").returncode == 0
    bare.calls()
    return bare


def test_a_bare_machine_is_set_up_in_three_steps_and_then_runs_the_command(bare: Machine) -> None:
    done = bare.run("demo")
    assert (done.returncode, done.stdout) == (0, "ran: demo\n")
    assert [line[-5:] for line in done.stderr.splitlines()] == ["(1/3)", "(2/3)", "(3/3)"]
    assert (bare.directory / "site" / "e3-checkout.pth").read_text() == f"{bare.checkout}\n"


def test_a_second_start_only_runs_the_command_and_takes_less_than_a_second(ready: Machine) -> None:
    begin = time.monotonic()
    done = ready.run("list")
    assert time.monotonic() - begin < 1
    assert (done.stdout, done.stderr) == ("ran: list\n", "")
    assert ready.calls() == ["python -I -m experiments.cli list"]


def test_once_set_up_no_root_is_needed(ready: Machine) -> None:
    ready.user(1000)
    assert ready.run("--help").stdout == "ran: --help\n"


def test_the_exit_status_is_that_of_the_command(ready: Machine) -> None:
    assert ready.run("run", CLI_STATUS="7").returncode == 7


def test_arguments_arrive_as_they_were_given(ready: Machine) -> None:
    assert ready.run("pcap", "a file; rm *").stdout == "ran: a file; rm *\n"


def test_without_root_one_line_says_what_to_run(bare: Machine) -> None:
    bare.user(1000)
    done = bare.run("demo")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "mininet openvswitch-switch python3-venv" in line and f"`sudo {bare.checkout}/e3 setup`" in line
    assert bare.calls() == []


def test_without_root_python_packages_are_installed_where_apt_has_nothing_to_do(bare: Machine) -> None:
    bare.user(1000)
    bare.owner(1000)
    bare.given("ensurepip", "mininet", "bin/mnexec", "bin/ovs-vswitchd")
    for name in ("mnexec", "ovs-vswitchd"):
        (bare.directory / "bin" / name).chmod(0o755)
    assert bare.run("list").stdout == "ran: list\n"
    assert not [call for call in bare.calls() if call.startswith(("apt-get", "setpriv"))]


def test_a_distribution_without_apt_is_told_what_to_install(bare: Machine) -> None:
    (bare.directory / "bin" / "apt-get").unlink()
    done = bare.run("demo")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "Some Linux 7 has no apt-get" in line and "mininet openvswitch-switch python3-venv" in line


def test_no_network_is_called_by_its_name_after_the_end_of_the_log(bare: Machine) -> None:
    bare.given("offline")
    done = bare.run("demo")
    assert done.returncode == 2
    assert "    | Temporary failure resolving" in done.stderr.splitlines()
    assert "check the network" in done.stderr.splitlines()[-1]


def test_a_package_that_apt_does_not_know_points_at_universe(bare: Machine) -> None:
    bare.given("no-universe")
    done = bare.run("demo")
    assert done.returncode == 2
    assert "add-apt-repository universe" in done.stderr.splitlines()[-1]


def test_after_pip_failed_the_next_start_goes_on_without_apt(bare: Machine) -> None:
    bare.given("ensurepip", "mininet", "offline")
    for name in ("mnexec", "ovs-vswitchd"):
        shutil.copy(bare.directory / "bin" / "true", bare.directory / "bin" / name)
    done = bare.run("demo")
    assert done.returncode == 2 and "pip could not install" in done.stderr.splitlines()[-1]
    (bare.directory / "offline").unlink()
    assert bare.run("demo").stdout == "ran: demo\n"
    assert not [call for call in bare.calls() if call.startswith("apt-get")]


def test_an_open_vswitch_of_ours_is_neither_started_nor_enabled(bare: Machine) -> None:
    bare.run("setup")
    calls = bare.calls()
    assert "policy says 101" in calls and "update-rc.d openvswitch-switch disable" in calls
    assert not bare.policy.exists()


def test_an_open_vswitch_that_was_there_before_is_left_alone(bare: Machine) -> None:
    shutil.copy(bare.directory / "bin" / "true", bare.directory / "bin" / "ovs-vswitchd")
    assert bare.run("setup").returncode == 0
    calls = bare.calls()
    [install] = [call for call in calls if call.startswith("apt-get") and "install" in call and "-only" not in call]
    assert "openvswitch-switch" not in install and "mininet" in install
    assert not [call for call in calls if call.startswith(("update-rc.d", "service", "policy"))]


def test_a_policy_of_the_users_stays_and_what_it_let_start_is_stopped(bare: Machine) -> None:
    bare.policy.write_text("#!/bin/sh\nexit 0\n")
    bare.policy.chmod(0o755)
    assert bare.run("setup").returncode == 0
    assert bare.policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert "service openvswitch-switch stop" in bare.calls()


def test_killed_while_apt_unpacks_it_leaves_nothing_harmful_and_starts_over(bare: Machine) -> None:
    bare.given("slow")
    process = bare.start("setup")
    bare.wait_for("unpacking")
    process.kill()
    process.communicate()
    ask = [str(bare.policy), "openvswitch-switch", "start"]
    assert subprocess.run(ask).returncode == 101, "apt still runs, so nothing may start"
    with (bare.venv / "setup.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert subprocess.run(ask).returncode == 0, "apt is over, so the left-over policy has no effect"
    (bare.directory / "slow").unlink()
    bare.calls()
    assert bare.run("setup").returncode == 0
    assert [call for call in bare.calls() if call.startswith("apt-get") and "--download-only" in call]
    assert not bare.policy.exists()


def test_told_to_stop_while_apt_unpacks_it_lets_apt_finish(bare: Machine) -> None:
    bare.given("slow")
    process = bare.start("setup")
    bare.wait_for("unpacking")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 143 and "dpkg" in errors
    assert "apt-get has finished" in bare.calls()
    assert not bare.policy.exists()


def test_told_to_stop_while_a_venv_is_made_it_ends_what_that_had_started_too(bare: Machine) -> None:
    bare.run("setup")
    (bare.venv / "complete").unlink()
    bare.given("stuck")
    process = bare.start("setup")
    bare.wait_for("grandchild")
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143
    state = Path(f"/proc/{(bare.directory / 'grandchild').read_text().strip()}/stat")
    deadline = time.monotonic() + 5
    while state.exists() and " Z " not in state.read_text():
        assert time.monotonic() < deadline, "the grandchild lives on"
        time.sleep(0.01)


def test_two_starts_at_once_set_up_once(bare: Machine) -> None:
    bare.given("slow")
    first = bare.start("demo")
    bare.wait_for("unpacking")
    second = bare.run("list")
    assert "waiting for another start" in second.stderr and second.stdout == "ran: list\n"
    assert first.communicate()[0] == "ran: demo\n"
    assert len([call for call in bare.calls() if "-m venv" in call]) == 1


def test_a_changed_lock_makes_the_environment_anew(ready: Machine) -> None:
    (ready.venv / "left-over").touch()
    with (ready.checkout / "requirements.lock").open("a") as lock:
        lock.write("something==1\n")
    assert ready.run("list").stdout == "ran: list\n"
    calls = ready.calls()
    assert [call for call in calls if "-m venv" in call] and not [call for call in calls if "apt-get" in call]
    assert not (ready.venv / "left-over").exists()


def test_a_moved_checkout_gets_a_new_environment(ready: Machine) -> None:
    ready.checkout = ready.checkout.rename(ready.directory / "elsewhere")
    assert ready.run("list").returncode == 0
    assert [call for call in ready.calls() if call.endswith("elsewhere/.venv")]


def test_a_tool_that_was_removed_is_installed_again(ready: Machine) -> None:
    (ready.directory / "bin" / "mnexec").unlink()
    assert ready.run("list").stdout == "ran: list\n"
    calls = ready.calls()
    assert [call for call in calls if call.endswith("install mininet")]
    assert not [call for call in calls if "-m venv" in call]


def test_an_environment_that_is_not_ours_is_not_touched(bare: Machine) -> None:
    bare.venv.mkdir()
    (bare.venv / "precious").write_text("work")
    done = bare.run("demo")
    assert done.returncode == 2 and "was not made by this launcher" in done.stderr
    assert os.listdir(bare.venv) == ["precious"]


def test_sudo_leaves_the_environment_to_the_owner_of_the_checkout(bare: Machine) -> None:
    bare.owner(1234)
    assert bare.run("setup").returncode == 0
    calls = bare.calls()
    as_owner = [call for call in calls if call.startswith("setpriv --reuid=1234 --regid=1234 --clear-groups")]
    assert [call for call in as_owner if "-m venv" in call] and [call for call in as_owner if "-m pip" in call]
    assert not [call for call in as_owner if "apt-get" in call]


def test_setup_takes_no_arguments(bare: Machine) -> None:
    done = bare.run("setup", "--everything")
    assert done.returncode == 2 and "--everything" in done.stderr
