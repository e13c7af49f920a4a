package kubelet_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
)

const image = "busybox:1.36"

// withAgent makes sure that a kubelet runs, and that the test leaves no pod behind.
func withAgent(t *testing.T) *env {
	t.Helper()
	e := machine
	if e.agent == nil {
		if err := e.startAgent(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-e.agent.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the node did not become ready")
	}
	t.Cleanup(func() {
		wait(t, "static pods have ended", func() bool {
			return e.agent == nil || !slices.ContainsFunc(e.agent.Pods(), func(p *corev1.Pod) bool { return p.Annotations["kubernetes.io/config.source"] != "" })
		})
		zero := int64(0)
		pods, err := e.client.CoreV1().Pods("").List(context.Background(), metav1.ListOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		for _, p := range pods.Items {
			if t.Failed() {
				t.Logf("pod %s: %s", p.Name, describe(e, &p))
			}
			_ = e.client.CoreV1().Pods(p.Namespace).Delete(context.Background(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
		}
		wait(t, "the agent has no pods", func() bool { return e.agent == nil || len(e.agent.Pods()) == 0 })
	})
	return e
}

// describe gives what helps to understand why a test failed.
func describe(e *env, p *corev1.Pod) string {
	var b strings.Builder
	b.WriteString(p.Status.String())
	events, err := e.client.CoreV1().Events(p.Namespace).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, ev := range events.Items {
		if ev.InvolvedObject.Name == p.Name {
			b.WriteString("\n  " + ev.Reason + ": " + ev.Message)
		}
	}
	return b.String()
}

func wait(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// pod makes a pod of one container that runs a shell script.
func pod(name, script string, change ...func(*corev1.Pod)) *corev1.Pod {
	one := int64(1)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.PodSpec{
			NodeName: "node-1", TerminationGracePeriodSeconds: &one, AutomountServiceAccountToken: new(bool),
			Containers: []corev1.Container{{Name: "main", Image: image, Command: []string{"sh", "-c", script}}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

// forever is a script that obeys SIGTERM.
const forever = "trap 'exit 0' TERM; sleep 3600 & wait"

func (e *env) create(t *testing.T, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	made, err := e.client.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// await watches a pod until it is as wished.
func (e *env) await(t *testing.T, p *corev1.Pod, what string, wished func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last *corev1.Pod
	for ctx.Err() == nil {
		w, err := e.client.CoreV1().Pods(p.Namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + p.Name})
		if err != nil {
			break
		}
		for event := range w.ResultChan() {
			if found, ok := event.Object.(*corev1.Pod); ok {
				if last = found; wished(found) {
					w.Stop()
					return found
				}
			}
		}
	}
	state := "there is none"
	if last != nil {
		state = describe(e, last)
	}
	t.Fatalf("pod %s: waited in vain for: %s; it is: %s", p.Name, what, state)
	return nil
}

func running(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning }
func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
func phase(want corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Status.Phase == want }
}

// delete deletes a pod and waits until it is gone.
func (e *env) delete(t *testing.T, p *corev1.Pod) {
	t.Helper()
	if err := e.client.CoreV1().Pods(p.Namespace).Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "pod "+p.Name+" is gone", func() bool {
		_, err := e.client.CoreV1().Pods(p.Namespace).Get(t.Context(), p.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// log reads what a container has written.
func (e *env) log(p *corev1.Pod, container string, attempt uint32) string {
	data, _ := os.ReadFile(filepath.Join(e.dir, "logs", p.Namespace+"_"+p.Name+"_"+string(p.UID), criconfig.LogPath(container, attempt)))
	return string(data)
}

func TestPodLife(t *testing.T) {
	e := withAgent(t)
	e.delete(t, e.await(t, e.create(t, pod("warm", forever)), "running", running))
	var create, remove []time.Duration
	for range 5 {
		began := time.Now()
		p := e.await(t, e.create(t, pod("life", forever)), "running", running)
		create = append(create, time.Since(began))
		if !ready(p) || p.Status.PodIP == "" || p.Status.HostIP != "127.0.0.1" || p.Status.StartTime == nil {
			t.Errorf("status is incomplete: %v", p.Status)
		}
		began = time.Now()
		e.delete(t, p)
		remove = append(remove, time.Since(began))
	}
	t.Logf("create to running %v, delete to gone %v", create, remove)
}

func TestRestartPolicies(t *testing.T) {
	e := withAgent(t)
	for _, test := range []struct {
		policy corev1.RestartPolicy
		script string
		want   func(*corev1.Pod) bool
		what   string
	}{
		{corev1.RestartPolicyNever, "exit 0", phase(corev1.PodSucceeded), "succeeded"},
		{corev1.RestartPolicyNever, "echo -n bye > /dev/termination-log; exit 3", func(p *corev1.Pod) bool {
			if p.Status.Phase != corev1.PodFailed {
				return false
			}
			s := p.Status.ContainerStatuses[0].State.Terminated
			return s != nil && s.ExitCode == 3 && s.Reason == "Error" && s.Message == "bye"
		}, "failed with code and message"},
		{corev1.RestartPolicyOnFailure, "exit 0", phase(corev1.PodSucceeded), "succeeded"},
		{corev1.RestartPolicyAlways, "exit 1", func(p *corev1.Pod) bool {
			s := p.Status.ContainerStatuses
			return len(s) == 1 && s[0].RestartCount == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff" &&
				s[0].State.Waiting.Message == "back-off 10s restarting failed container=main pod=life_default("+string(p.UID)+")" &&
				s[0].LastTerminationState.Terminated != nil && p.Status.Phase == corev1.PodRunning
		}, "backing off"},
	} {
		p := e.create(t, pod("life", test.script, func(p *corev1.Pod) { p.Spec.RestartPolicy = test.policy }))
		e.await(t, p, test.what, test.want)
		e.delete(t, p)
	}
}

func TestInitAndSidecars(t *testing.T) {
	e := withAgent(t)
	always := corev1.ContainerRestartPolicyAlways
	p := e.create(t, pod("ordered", "echo main >> /shared/order; sleep 0.2", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		mount := []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
		p.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts = mount
		p.Spec.InitContainers = []corev1.Container{
			{Name: "first", Image: image, VolumeMounts: mount, Command: []string{"sh", "-c", "echo first >> /shared/order"}},
			{Name: "side", Image: image, VolumeMounts: mount, RestartPolicy: &always,
				Command: []string{"sh", "-c", "trap 'cat /shared/order; exit 0' TERM; echo side >> /shared/order; touch /shared/up; sleep 3600 & wait"},
				StartupProbe: &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 30,
					ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/shared/up"}}}}},
			{Name: "last", Image: image, VolumeMounts: mount, Command: []string{"sh", "-c", "echo last >> /shared/order"}},
		}
	}))
	done := e.await(t, p, "succeeded", phase(corev1.PodSucceeded))
	var order []string
	for _, line := range strings.Split(strings.TrimSpace(e.log(done, "side", 0)), "\n") {
		fields := strings.Fields(line)
		order = append(order, fields[len(fields)-1])
	}
	if got := strings.Join(order, " "); got != "first side last main" {
		t.Errorf("containers ran in the order %q", got)
	}
	for _, s := range done.Status.InitContainerStatuses {
		if s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 {
			t.Errorf("init container %s: %v", s.Name, s.State)
		}
	}
	failed := e.create(t, pod("never", "echo no", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.InitContainers = []corev1.Container{{Name: "bad", Image: image, Command: []string{"false"}}}
	}))
	last := e.await(t, failed, "failed", phase(corev1.PodFailed))
	if s := last.Status.ContainerStatuses[0]; s.ContainerID != "" || e.log(last, "main", 0) != "" {
		t.Errorf("the main container ran although initialization failed: %v", s)
	}
}

func TestEnvironmentAndVolumes(t *testing.T) {
	e := withAgent(t)
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(e.client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"COLOR": "blue", "nested": "x"},
	}, metav1.CreateOptions{}))
	t.Cleanup(func() {
		_ = e.client.CoreV1().ConfigMaps("default").Delete(context.Background(), "settings", metav1.DeleteOptions{})
	})
	must(e.client.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pass"}, StringData: map[string]string{"word": "sesame"},
	}, metav1.CreateOptions{}))
	t.Cleanup(func() {
		_ = e.client.CoreV1().Secrets("default").Delete(context.Background(), "pass", metav1.DeleteOptions{})
	})
	script := `echo "$COLOR $WORD $NODE $IP $TWICE $LIMIT $(id -u):$(id -g)"
cat /config/a/b; echo; ls -l /secret/word | cut -c1-10; cat /secret/word; echo
cat /var/run/token; echo; cat /info/labels; echo; cat /etc/hosts | tail -1; hostname; grep -c . /etc/resolv.conf; cat /sub/here 2>/dev/null || echo none
until grep -q red /config/a/b; do sleep 0.05; done; echo changed; sleep 3600 & wait`
	p := e.create(t, pod("full", script, func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "full"}
		p.Spec.ServiceAccountName = "default"
		user, group := int64(1000), int64(2000)
		mode := int32(0o440)
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &group, FSGroup: &group}
		p.Spec.HostAliases = []corev1.HostAlias{{IP: "10.1.2.3", Hostnames: []string{"alias"}}}
		p.Spec.Hostname = "named"
		c := &p.Spec.Containers[0]
		ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
		c.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("settings")}}}
		c.Env = []corev1.EnvVar{
			{Name: "WORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("pass"), Key: "word"}}},
			{Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}},
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "TWICE", Value: "$(COLOR)$(COLOR)"},
			{Name: "LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}},
		}
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("500m")}
		seconds := int64(3600)
		p.Spec.Volumes = []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("settings"),
				Items: []corev1.KeyToPath{{Key: "COLOR", Path: "a/b"}}}}},
			{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "pass", DefaultMode: &mode}}},
			{Name: "mixed", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}}}}}},
			{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
			{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		}
		c.VolumeMounts = []corev1.VolumeMount{
			{Name: "config", MountPath: "/config"}, {Name: "secret", MountPath: "/secret"}, {Name: "mixed", MountPath: "/var/run"},
			{Name: "info", MountPath: "/info"}, {Name: "scratch", MountPath: "/sub", SubPathExpr: "$(NODE)/deep"},
		}
	}))
	up := e.await(t, p, "running", running)
	want := []string{
		"blue sesame node-1 " + up.Status.PodIP + " blueblue 67108864 1000:2000", "blue", "lrwxrwxrwx", "sesame",
		"token of default/default for full", `app="full"`, "10.1.2.3\talias", "named", "3", "none",
	}
	texts := func() []string {
		var list []string
		for _, line := range strings.Split(strings.TrimSpace(e.log(up, "main", 0)), "\n") {
			if parts := strings.SplitN(line, " ", 4); len(parts) == 4 {
				list = append(list, parts[3])
			}
		}
		return list
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the container wrote %q", texts())
		}
	})
	wait(t, "the container has written", func() bool { return len(texts()) >= len(want) })
	if got := texts(); !slices.Equal(got[:len(want)], want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if up.Status.QOSClass != corev1.PodQOSGuaranteed {
		t.Errorf("QoS class is %s", up.Status.QOSClass)
	}
	must(e.client.CoreV1().ConfigMaps("default").Update(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"COLOR": "red"},
	}, metav1.UpdateOptions{}))
	wait(t, "the change arrives in the volume", func() bool { return strings.HasSuffix(strings.TrimSpace(e.log(up, "main", 0)), "changed") })
	e.delete(t, p)
	if _, err := os.Stat(filepath.Join(e.dir, "kubelet", "pods", string(p.UID))); !os.IsNotExist(err) {
		t.Errorf("the pod's directory is left: %v", err)
	}
}

func TestProbesRestartAndReadiness(t *testing.T) {
	e := withAgent(t)
	p := e.create(t, pod("probed", "touch /tmp/alive; "+forever, func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		exec := func(path string) corev1.ProbeHandler {
			return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", path}}}
		}
		c.LivenessProbe = &corev1.Probe{ProbeHandler: exec("/tmp/alive"), PeriodSeconds: 1, FailureThreshold: 1}
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: exec("/tmp/ready"), PeriodSeconds: 1}
	}))
	up := e.await(t, p, "running", running)
	if ready(up) {
		t.Error("ready before the probe has succeeded")
	}
	id := func(p *corev1.Pod) string {
		return strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	}
	exec := func(id string, command ...string) {
		t.Helper()
		answer, err := e.agent.Runtime().ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: 5})
		if err != nil || answer.ExitCode != 0 {
			t.Fatal(err, answer)
		}
	}
	exec(id(up), "touch", "/tmp/ready")
	e.await(t, p, "ready", ready)
	exec(id(up), "rm", "/tmp/alive")
	again := e.await(t, p, "restarted", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].RestartCount == 1 && s[0].State.Running != nil
	})
	if ready(again) {
		t.Error("the new container is ready by the word of the old one")
	}
	wait(t, "events tell what happened", func() bool {
		text := describe(e, again)
		return strings.Contains(text, "Unhealthy: Liveness probe failed: cat: can't open '/tmp/alive': No such file or directory") &&
			strings.Contains(text, "Killing: Container main failed liveness probe, will be restarted")
	})
}

func TestHooks(t *testing.T) {
	e := withAgent(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	p := e.create(t, pod("hooked", "trap 'echo term >> /host/log; exit 0' TERM; echo main >> /host/log; sleep 3600 & wait", func(p *corev1.Pod) {
		five := int64(5)
		p.Spec.TerminationGracePeriodSeconds = &five
		p.Spec.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/host"}}
		say := func(text string) *corev1.LifecycleHandler {
			return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "sleep 0.2; echo " + text + " >> /host/log"}}}
		}
		c.Lifecycle = &corev1.Lifecycle{PostStart: say("post"), PreStop: say("pre")}
	}))
	e.await(t, p, "running", running)
	read := func() string {
		data, _ := os.ReadFile(filepath.Join(dir, "log"))
		return strings.Join(strings.Fields(string(data)), " ")
	}
	if got := read(); got != "main post" {
		t.Errorf("running before the postStart hook has ended: %q", got)
	}
	e.delete(t, p)
	if got := read(); got != "main post pre term" {
		t.Errorf("the end went %q", got)
	}
}

// TestAgentRestart stops the agent, changes what is declared, and starts it again.
func TestAgentRestart(t *testing.T) {
	e := withAgent(t)
	kept := e.await(t, e.create(t, pod("kept", forever, func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
			Exec: &corev1.ExecAction{Command: []string{"true"}}}}
	})), "ready", ready)
	doomed := e.await(t, e.create(t, pod("doomed", forever)), "running", running)
	lost := e.await(t, e.create(t, pod("lost", forever)), "running", running)
	if err := e.stopAgent(); err != nil {
		t.Fatal(err)
	}
	zero := int64(0)
	if err := e.client.CoreV1().Pods("default").Delete(t.Context(), "lost", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	if err := e.client.CoreV1().Pods("default").Delete(t.Context(), "doomed", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w, err := e.client.CoreV1().Pods("default").Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=kept", ResourceVersion: kept.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if err := e.startAgent(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the deleted pods are gone", func() bool {
		_, err := e.client.CoreV1().Pods("default").Get(t.Context(), "doomed", metav1.GetOptions{})
		list, err2 := e.agent.Runtime().ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
		return apierrors.IsNotFound(err) && err2 == nil && len(list.Items) == 1
	})
	now, err := e.client.CoreV1().Pods("default").Get(t.Context(), "kept", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before, after := kept.Status.ContainerStatuses[0], now.Status.ContainerStatuses[0]
	if before.ContainerID != after.ContainerID || after.RestartCount != 0 || !ready(now) {
		t.Errorf("the container did not go on: %v", after)
	}
	select {
	case event := <-w.ResultChan():
		t.Errorf("the status of a pod that nothing happened to was written: %v", event.Object)
	default:
	}
	for _, p := range []*corev1.Pod{doomed, lost} {
		if _, err := os.Stat(filepath.Join(e.dir, "logs", "default_"+p.Name+"_"+string(p.UID))); !os.IsNotExist(err) {
			wait(t, "the logs of "+p.Name+" are removed", func() bool {
				_, err := os.Stat(filepath.Join(e.dir, "logs", "default_"+p.Name+"_"+string(p.UID)))
				return os.IsNotExist(err)
			})
		}
	}
}

func TestImageProblems(t *testing.T) {
	e := withAgent(t)
	for _, test := range []struct {
		image  string
		policy corev1.PullPolicy
		reason string
		text   string
	}{
		{"busybox:absent", corev1.PullNever, "ErrImageNeverPull", `Container image "busybox:absent" is not present with pull policy of Never`},
		{"127.0.0.1:1/none:1", corev1.PullIfNotPresent, "ImagePullBackOff", `Back-off pulling image "127.0.0.1:1/none:1": ErrImagePull: `},
	} {
		p := e.create(t, pod("picture", forever, func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = test.image, test.policy
		}))
		e.await(t, p, test.reason, func(p *corev1.Pod) bool {
			s := p.Status.ContainerStatuses
			return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == test.reason && strings.HasPrefix(s[0].State.Waiting.Message, test.text)
		})
		e.delete(t, p)
	}
}

func TestStaticPod(t *testing.T) {
	e := withAgent(t)
	path := filepath.Join(e.dir, "static", "web.yaml")
	manifest := func(text string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: " + image +
			"\n    command: [sh, -c, \"trap 'exit 0' TERM; echo " + text + "; sleep 3600 & wait\"]\n"
	}
	if err := os.WriteFile(path, []byte(manifest("one")), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	mirror := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-node-1", Namespace: "default"}}
	first := e.await(t, mirror, "mirrored and running", running)
	zero := int64(0)
	if err := e.client.CoreV1().Pods("default").Delete(t.Context(), mirror.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	second := e.await(t, mirror, "mirrored again", func(p *corev1.Pod) bool { return p.UID != first.UID && running(p) })
	if first.Status.ContainerStatuses[0].ContainerID != second.Status.ContainerStatuses[0].ContainerID {
		t.Error("the container was restarted for the sake of its mirror")
	}
	if err := os.WriteFile(path, []byte(manifest("two")), 0o644); err != nil {
		t.Fatal(err)
	}
	e.await(t, mirror, "replaced", func(p *corev1.Pod) bool {
		return running(p) && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].ContainerID != second.Status.ContainerStatuses[0].ContainerID
	})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wait(t, "the mirror goes with the manifest", func() bool {
		_, err := e.client.CoreV1().Pods("default").Get(t.Context(), mirror.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}
