"""Packages the testbed for those who want it installed; `./e3` runs it from the checkout and does not need this."""

from setuptools import setup

setup(
    name="e3-testbed",
    version="0.1.0",
    description="A packet-level emulation testbed for microservices on SmartNIC-accelerated servers",
    license="MIT",
    python_requires=">=3.10",
    # One by one, so that what is on disk is what is imported, and no test is packaged.
    packages=[
        "topologies",
        "microservices",
        "nodes",
        "controller",
        "controller.placement",
        "experiments",
        "experiments.benchmarks",
        "experiments.captures",
        "experiments.clients",
        "experiments.commands",
        "experiments.emulation",
        "experiments.failures",
        "experiments.measurement",
        "experiments.reporting",
        "experiments.runs",
        "experiments.shell",
        "experiments.views",
    ],
    # Whatever is no Python file and is read at run time: rule sets, dissectors.
    package_data={
        "microservices": ["*.rules", "*.json"],
        "experiments": ["scenarios/*.yaml"],
        "experiments.reporting": ["*.csv", "*.j2", "*.css"],
    },
    # Mininet and Open vSwitch come from the system's packages. Exact versions are in requirements.lock.
    install_requires=[
        'ryu==4.34; python_version < "3.12"',
        "os-ken>=4.2",
        "cryptography",
        "dpkt",
        "Jinja2",
        "matplotlib",
        "msgspec",
        "numpy",
        "pyahocorasick",
        "pysyncobj",
        "PyYAML",
        "rich",
        "scapy",
        "scipy",
        'tomli; python_version < "3.11"',
        "typer",
        "weasyprint",
    ],
    extras_require={
        "test": [
            'hdrhistogram; platform_machine == "x86_64"',
            "hypothesis",
            "mypy",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "rank-bm25",
            "ruff",
            "scikit-learn",
        ],
    },
    entry_points={"console_scripts": ["e3 = experiments.cli:main"]},
)
