"""The driver calls, made for real into a small C library that stands where the driver would and prints what it got."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

STAND_IN = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
static int setting(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }
int cuInit(unsigned flags) { return setting("INIT_STATUS"); }
int cuGetErrorName(int status, const char **name) {
    *name = status == 100 ? "CUDA_ERROR_NO_DEVICE" : status == 901 ? "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" : NULL;
    return *name ? 0 : 1;
}
int cuDeviceGetCount(int *count) { *count = setting("DEVICES"); return 0; }
int cuDeviceGet(int *device, int index) { *device = 5 + index; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = device != 5 ? -1 : attribute == 75 ? 12 : attribute == 76 ? 1 : -1;
    return 0;
}
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Stand-in %d", device); return 0; }
int cuStreamBeginCapture_v2(uintptr_t stream, int mode) { printf("begin %lx\n", stream); fflush(stdout); return 0; }
int cuStreamEndCapture(uintptr_t stream, uintptr_t *graph) {
    int status = setting("CAPTURE_STATUS");
    printf("end %lx\n", stream); fflush(stdout);
    *graph = status ? 0 : 0x7fff12345678;
    return status;
}
int cuGraphInstantiateWithFlags(uintptr_t *executable, uintptr_t graph, unsigned long long flags) {
    printf("instantiate %lx %llu\n", graph, flags); fflush(stdout);
    *executable = 0x7eee12345678;
    return 0;
}
int cuGraphDestroy(uintptr_t graph) { printf("destroy %lx\n", graph); fflush(stdout); return 0; }
int cuGraphLaunch(uintptr_t executable, uintptr_t stream) {
    printf("launch %lx %lx\n", executable, stream); fflush(stdout);
    return 0;
}
static int kinds[] = {0, 1, 0, 4, 2}; /* two kernels, a copy and a fill around a graph of its own */
int cuGraphGetNodes(uintptr_t graph, void **nodes, size_t *count) {
    int inner = graph == 0x55, size = inner ? 1 : 5;
    for (int i = 0; nodes && i < size; i++) nodes[i] = &kinds[inner ? 2 : i];
    *count = size;
    return 0;
}
int cuGraphNodeGetType(int *node, int *kind) { *kind = *node; return 0; }
int cuGraphChildGraphNodeGetGraph(int *node, uintptr_t *graph) { *graph = 0x55; return *node == 4 ? 0 : 1; }
int cuGraphExecDestroy(uintptr_t executable) { printf("free %lx\n", executable); fflush(stdout); return 0; }
"""

CAPTURE = """
from runtime.engines.trt.cuda import CapturedGraph
graph = CapturedGraph(0x7CCC00001111, lambda: print("enqueue", flush=True))
print(graph.kernels, "kernels", flush=True)
graph.launch()
graph.launch()
graph.free()
graph.free()
"""
FAILING_CAPTURE = CAPTURE.replace('lambda: print("enqueue", flush=True)', "lambda: 1 / 0")

IMPORT = "from runtime.engines.trt import cuda"


@pytest.fixture(scope="module")
def driver_folder(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler for the stand-in driver")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(STAND_IN)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "driver.c"], check=True, timeout=60
    )
    return folder


@pytest.fixture
def run(driver_folder):
    def run_python(code, **settings):
        environment = {**os.environ, **settings, "LD_LIBRARY_PATH": str(driver_folder)}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)

    return run_python


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"DEVICES": "1"}, "None"),
        ({"DEVICES": "0"}, "a driver without a device"),
        ({"INIT_STATUS": "100"}, "cuInit: CUDA_ERROR_NO_DEVICE"),
        ({"INIT_STATUS": "7"}, "cuInit: status 7"),  # one that this driver has no name for
    ],
)
def test_what_stands_between_us_and_a_device(run, settings, expected):
    assert run(f"{IMPORT}; print(cuda.device_problem())", **settings).stdout.strip() == expected


def test_a_device_tells_its_name_and_capability(run):
    result = run(f"{IMPORT}; print(cuda.compute_capability(), cuda.device_name())", DEVICES="1")
    assert result.stdout.strip() == "12.1 Stand-in 5"


def test_a_capture_is_replayed_and_freed_once(run):
    handles = run(CAPTURE).stdout.splitlines()  # 64-bit handles arrive whole
    assert handles == [
        "begin 7ccc00001111",
        "enqueue",
        "end 7ccc00001111",
        "instantiate 7fff12345678 0",
        "destroy 7fff12345678",
        "3 kernels",  # one of them in the graph within
        "launch 7eee12345678 7ccc00001111",
        "launch 7eee12345678 7ccc00001111",
        "free 7eee12345678",
    ]


def test_an_invalidated_capture_is_told_by_name(run):
    result = run(CAPTURE, CAPTURE_STATUS="901")
    assert "CudaError: cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" in result.stderr
    assert "launch" not in result.stdout


def test_work_that_fails_ends_the_capture_and_keeps_its_error(run):
    result = run(FAILING_CAPTURE)
    assert "ZeroDivisionError" in result.stderr
    assert result.stdout.splitlines() == ["begin 7ccc00001111", "end 7ccc00001111", "destroy 7fff12345678"]
