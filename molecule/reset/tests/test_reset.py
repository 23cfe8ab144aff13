"""A machine after a reset is what it was before the roles. The tests stand in the order in which they run."""

import subprocess

from machines import (
    CONNECTION,
    PLAYBOOK_SECONDS,
    POD_SECONDS,
    ROOT,
    TUNNEL_GOES,
    ask,
    command,
    differences,
    play,
    reset,
    ssh,
    until,
)

MASTER, WORKER = "master-01", "worker-01"
KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
LOCK = "/run/tortie-kubeadm.lock"
# Pods on both nodes, one of them with a port of the node: devices, routes and the portmap plugin's chains.
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: probe-{node}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
    - name: probe
      image: {image}
      imagePullPolicy: IfNotPresent
      command: [tortie-probe, serve, --port=8080]
      ports: [{{containerPort: 8080, hostPort: 18080}}]
"""


def start_pods() -> None:
    """Run a pod on every node, in the cluster as it is now."""
    path = "{.spec.template.spec.containers[0].image}"
    image = ask(MASTER, f"{KUBECTL} get daemonset calico-node -n kube-system -o jsonpath='{path}'")
    manifest = "---".join(POD.format(node=node, image=image) for node in (MASTER, WORKER))
    ask(MASTER, f"{KUBECTL} apply -f - <<'END'\n{manifest}\nEND")
    ask(MASTER, f"{KUBECTL} wait pod --all --for=condition=Ready --timeout={POD_SECONDS}s")


def kill_reset_when(condition: str) -> None:
    """Begin a reset of the worker, and kill -9 its process there as soon as a shell condition holds."""
    killer = f"""
        for attempt in $(seq 30000); do
            pid=$(lslocks --noheadings --output PID,PATH | awk '$2 == "{LOCK}" {{print $1; exit}}')
            if [ -n "$pid" ] && {condition}; then kill -9 "$pid" && echo killed && exit; fi
            sleep 0.02
        done"""
    arguments = ["playbooks/reset.yml", "--extra-vars=reset_confirm=yes", f"--limit={WORKER}"]
    with subprocess.Popen(
        command(*arguments, "--extra-vars=reset_drain_timeout=0"), cwd=ROOT, stdout=subprocess.DEVNULL
    ) as process:
        assert ask(WORKER, killer) == "killed"
        assert process.wait(timeout=PLAYBOOK_SECONDS) != 0


def test_installation_leaves_traces_everywhere() -> None:
    start_pods()
    for host, lines in differences("installed", MASTER, WORKER).items():
        sections = {line.partition(":")[0] for line in lines}
        expected = {
            "addresses",
            "files",
            "iptables",
            "links",
            "mounts",
            "nftables",
            "routes",
            "sysctls",
            "units",
        }
        assert expected <= sections, host
        assert any("CNI-HOSTPORT" in line for line in lines), host


def test_reset_without_confirmation_is_refused_with_a_sentence() -> None:
    refused = play("playbooks/reset.yml", may_fail=True)
    assert refused.status != 0
    assert "run it with -e reset_confirm=yes" in " ".join(refused.output.split())
    assert ask(MASTER, f"{KUBECTL} get nodes --no-headers | grep -cw Ready") == "2"


def test_check_mode_says_what_would_go_and_removes_nothing() -> None:
    looked = play("playbooks/reset.yml", "--check", "--diff")
    assert {host: count > 0 for host, count in looked.changed.items()} == {MASTER: True, WORKER: True}
    for line in ("-stop kubelet.service", "-remove /etc/kubernetes", TUNNEL_GOES):
        assert line in looked.output
    assert ask(MASTER, f"{KUBECTL} get nodes --no-headers | grep -cw Ready") == "2"
    assert ask(WORKER, "systemctl is-active kubelet containerd").split() == ["active", "active"]


def test_worker_leaves_a_cluster_that_goes_on() -> None:
    reset(f"--limit={WORKER}")
    assert differences("worker", WORKER) == {WORKER: []}
    assert ask(MASTER, f"{KUBECTL} get nodes -o name") == f"node/{MASTER}"
    until(
        lambda: (
            ask(MASTER, f"{KUBECTL} get pods -A -o jsonpath='{{.items[*].spec.nodeName}}'").find(WORKER) < 0
        ),
        f"no pod of {WORKER} left in the cluster",
    )


def test_second_reset_changes_nothing() -> None:
    assert reset(f"--limit={WORKER}").changed == {WORKER: 0}


def test_reset_worker_joins_again() -> None:
    play("molecule/default/converge.yml")
    assert ask(MASTER, f"{KUBECTL} get nodes --no-headers | grep -cw Ready") == "2"
    start_pods()


def test_killed_reset_is_finished_by_the_next() -> None:
    kill_reset_when("! [ -e /etc/systemd/system/kubelet.service ]")
    assert ask(WORKER, "cat /var/lib/tortie/before.json")
    kill_reset_when("grep -q '\"drop_containerd\": true' /var/lib/tortie/before.json")
    assert ask(WORKER, "cat /var/lib/tortie/before.json")
    assert reset(f"--limit={WORKER}").changed[WORKER] > 0
    assert differences("killed", WORKER) == {WORKER: []}


def test_whole_cluster_goes_and_a_session_over_ssh_stays() -> None:
    play("molecule/default/converge.yml")
    start_pods()
    with subprocess.Popen(
        ["ssh", *CONNECTION, WORKER, 'echo begun; read -r line; echo "$line"'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        reset()
        said, _nothing = process.communicate("still here\n", timeout=30)
    assert said == "still here\n"
    assert differences("after", MASTER, WORKER) == {MASTER: [], WORKER: []}
    assert reset().changed == {MASTER: 0, WORKER: 0}


def test_half_installed_machine_is_reset() -> None:
    half = ("site.yml", "--tags=node,containerd,kubernetes")
    play(*half)
    assert play(*half).changed == {MASTER: 0, WORKER: 0}
    for host, lines in differences("half", MASTER, WORKER).items():
        assert any("/usr/local/bin/kubeadm" in line for line in lines), host
    reset()
    assert differences("half-reset", MASTER, WORKER) == {MASTER: [], WORKER: []}
    assert reset().changed == {MASTER: 0, WORKER: 0}


def test_things_of_somebody_else_are_as_they_were() -> None:
    assert ask(WORKER, "/usr/local/bin/kubectl") == "not ours"
    assert ask(WORKER, "cat /opt/cni/bin/portmap") == "not ours"
    assert "198.51.100.0/25" in ask(WORKER, "ip route show type blackhole")
    assert ssh(WORKER, "iptables-save -t nat | grep -c ANOTHER").stdout.strip() == "2"
