"""The Vagrantfile, as Ruby reads it: Vagrant itself is not asked, only a recorder that stands in for it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(shutil.which("ruby") is None, reason="needs ruby")

# Records every setting, method call and block of Vagrant.configure as a list of [path, arguments].
RECORDER = r"""
require "json"
$calls = []
class Recorder
  def initialize(path) = @path = path
  def method_missing(name, *args, **options, &block)
    path = "#{@path}.#{name}"
    $calls << [path, args, options] unless args.empty? && options.empty? && block.nil?
    block&.call(Recorder.new("#{path}[#{args.first}]"))
    Recorder.new(path)
  end
  def respond_to_missing?(*) = true
end
module Vagrant
  def self.configure(version) = yield(Recorder.new("v#{version}"))
end
load ARGV.fetch(0)
puts JSON.generate($calls)
"""


@pytest.fixture(scope="module")
def calls() -> list[Any]:
    ruby = subprocess.run(["ruby", "-e", RECORDER, str(ROOT / "Vagrantfile")], capture_output=True, text=True)
    assert ruby.returncode == 0, ruby.stderr
    recorded: list[Any] = json.loads(ruby.stdout)
    return recorded


def setting(calls: list[Any], name: str) -> list[Any]:
    return [args[0] for path, args, _ in calls if path.endswith(f".{name}=")]


def test_ruby_finds_nothing_to_warn_of() -> None:
    ruby = subprocess.run(["ruby", "-wc", str(ROOT / "Vagrantfile")], capture_output=True, text=True)
    assert (ruby.stdout.strip(), ruby.stderr) == ("Syntax OK", "")


def test_one_box_is_pinned_to_one_version(calls: list[Any]) -> None:
    [box] = setting(calls, "box")
    [version] = setting(calls, "box_version")
    assert re.fullmatch(r"bento/(debian|ubuntu)-[\d.]+", box)
    assert re.fullmatch(r"\d{6}\.\d{2}\.\d", version)


def test_every_provider_gets_memory_and_cores_for_a_rack(calls: list[Any]) -> None:
    providers = [args[0] for path, args, _ in calls if path.endswith(".provider")]
    assert "virtualbox" in providers
    assert len(setting(calls, "memory")) == len(setting(calls, "cpus")) == len(providers)
    assert min(setting(calls, "memory")) >= 4096
    assert min(setting(calls, "cpus")) >= 2


def test_the_launcher_provisions_the_machine_after_its_venv_has_been_given_a_place(calls: list[Any]) -> None:
    steps = [options for path, _, options in calls if path.endswith(".provision")]
    assert [step["type"] for step in steps] == ["shell", "shell"]
    assert "mount --bind" in steps[0]["inline"] and steps[0]["run"] == "always"
    assert steps[1]["inline"] == "/vagrant/e3 setup"
    for step in steps:
        assert subprocess.run(["bash", "-n", "-c", step["inline"]]).returncode == 0
