"""What docs/archives.md says, and its files to copy, held to the code."""

import importlib.util
import re
import shlex
import shutil
import subprocess

import pytest

from runtime.judge import build_parser
from tests.support.documentation import example, read

PAGE = "docs/archives.md"
needs_yaml = pytest.mark.skipif(not importlib.util.find_spec("yaml"), reason="PyYAML")


def _judge_words(line: str) -> list[str]:
    words = shlex.split(line)
    return words[words.index("judge") + 1 :]


def test_the_columns_are_those_of_the_file():
    pytest.importorskip("pyarrow")
    from runtime.archive.table import columns

    table = read(PAGE).split("| column | what it is |")[1].split("\n\n")[0]
    named = re.findall(r"`([a-z_0-9]+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))
    assert sorted(named) == sorted(columns().names)


def test_the_slurm_array_is_a_script_that_gives_each_task_its_shard():
    path = example("archive.sbatch")
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True).returncode == 0
    if shellcheck := shutil.which("shellcheck"):
        assert subprocess.run([shellcheck, str(path)]).returncode == 0
    # as Slurm runs it, with the command's name said instead of the command being run
    script = path.read_text().replace("exec /opt/cflow-edge/.venv/bin/cflow", "printf '%s\\n'")
    given = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "8", "PATH": "/bin"}
    said = subprocess.run(["bash", "-c", script], env=given, capture_output=True, text=True, check=True).stdout
    args = build_parser().parse_args(said.splitlines()[1:])
    assert (str(args.shard), args.workers) == ("3/16", 8)
    less = {name: value for name, value in given.items() if name != "SLURM_ARRAY_TASK_ID"}
    assert subprocess.run(["bash", "-c", script], env=less, capture_output=True).returncode != 0


@needs_yaml
def test_the_kubernetes_job_has_a_pod_for_each_shard():
    import yaml

    [job] = yaml.safe_load_all(example("archive-job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed" and spec["parallelism"] <= spec["completions"]
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # which backoffLimitPerIndex wants
    [container] = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    line = container["args"][0].replace("exec cflow", "printf '%s\\n'")
    shards = []
    for index in range(spec["completions"]):
        environment = {"JOB_COMPLETION_INDEX": str(index), "PATH": "/bin"}
        said = subprocess.run(
            [*container["command"], line], env=environment, capture_output=True, text=True, check=True
        )
        shards.append(build_parser().parse_args(said.stdout.splitlines()[1:]))
    assert [str(args.shard) for args in shards] == [f"{number}/16" for number in range(1, 17)]
    assert shards[0].workers == int(container["resources"]["limits"]["cpu"])
