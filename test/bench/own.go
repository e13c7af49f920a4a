package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// measureBoot starts clusters with empty data, and runs a first pod in each.
func measureBoot(ctx context.Context, b *bench) ([]row, error) {
	var phases []string
	took := map[string][]time.Duration{}
	for i := range 5 {
		c, err := b.start(ctx, fmt.Sprintf("-boot%d", i))
		if err != nil {
			return nil, err
		}
		for _, p := range c.Phases {
			if took[p.Name] == nil {
				phases = append(phases, p.Name)
			}
			took[p.Name] = append(took[p.Name], time.Duration(p.Milliseconds*float64(time.Millisecond)))
		}
		first, err := b.firstPod(ctx, c)
		if downErr := c.down(); err == nil {
			err = downErr
		}
		if err != nil {
			return nil, err
		}
		took["first pod"] = append(took["first pod"], first)
	}
	var rows []row
	for _, p := range phases {
		rows = append(rows, percentiles("empty data → "+p, took[p]))
	}
	return append(rows, percentiles("first pod create → Running after the node was ready", took["first pod"])), nil
}

func (b *bench) firstPod(ctx context.Context, c *ownCluster) (time.Duration, error) {
	if err := c.load(ctx, b.archive); err != nil {
		return 0, err
	}
	config, client, err := newClient(c.Kubeconfig)
	if err != nil {
		return 0, err
	}
	if err := makeNamespace(ctx, client); err != nil {
		return 0, err
	}
	one := &bench{options: b.options, config: config, client: client}
	began := time.Now()
	if _, err := client.CoreV1().Pods(namespace).Create(ctx, one.pod("first"), metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	err = one.waitPods(ctx, named("first"), running)
	return time.Since(began), err
}

// usage is what all processes of a cluster use together, in MB.
type usage struct {
	pss, anonymous float64
	cpu            time.Duration
}

// memory looks at the cluster's processes, after the garbage of the work before has had a moment to go. It is zero for
// another cluster, whose processes aren't known.
func (b *bench) memory(ctx context.Context) (usage, error) {
	if b.cluster == nil {
		return usage{}, nil
	}
	select {
	case <-time.After(b.idle):
	case <-ctx.Done():
	}
	return b.cluster.usage(ctx)
}

// measureIdle looks at a cluster with nothing deployed.
func measureIdle(ctx context.Context, b *bench) ([]row, error) {
	c, err := b.start(ctx, "-idle")
	if err != nil {
		return nil, err
	}
	rows, err := idleRows(ctx, c, b.idle)
	if downErr := c.down(); err == nil {
		err = downErr
	}
	return rows, err
}

func idleRows(ctx context.Context, c *ownCluster, idle time.Duration) ([]row, error) {
	var at [2]usage
	for i := range at { // the first wait is for the work of the start to end
		select {
		case <-time.After(idle):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		u, err := c.usage(ctx)
		if err != nil {
			return nil, err
		}
		at[i] = u
	}
	return []row{
		{Name: "idle memory, all processes", Unit: "MB", Labels: []string{"PSS", "anonymous"}, Values: []float64{at[1].pss, at[1].anonymous}},
		{Name: "idle CPU", Unit: "% of a core", Values: []float64{100 * (at[1].cpu - at[0].cpu).Seconds() / idle.Seconds()}},
	}, nil
}

// usage adds up the cluster's processes.
func (c *ownCluster) usage(ctx context.Context) (usage, error) {
	server, err := c.pid(ctx)
	if err != nil {
		return usage{}, err
	}
	return c.usageWith(server)
}

// usageWith adds up the cluster's processes: the server, and those whose executables lie in its data directory (shims).
func (c *ownCluster) usageWith(server int) (usage, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return usage{}, err
	}
	var all usage
	for _, dir := range dirs {
		exe, _ := os.Readlink(dir + "/exe")
		if filepath.Base(dir) != strconv.Itoa(server) && !strings.HasPrefix(exe, c.dir+"/") && !c.inCgroup(dir) {
			continue
		}
		u, err := processUsage(dir)
		if os.IsNotExist(err) {
			continue // it has ended
		}
		if err != nil {
			return usage{}, err
		}
		all.pss += u.pss
		all.anonymous += u.anonymous
		all.cpu += u.cpu
	}
	return all, nil
}

func (c *ownCluster) inCgroup(dir string) bool {
	data, err := os.ReadFile(dir + "/cgroup")
	return err == nil && strings.Contains(string(data), "/proa-"+c.name+"/")
}

func processUsage(dir string) (usage, error) {
	f, err := os.Open(dir + "/smaps_rollup")
	if err != nil {
		return usage{}, err
	}
	defer f.Close()
	var u usage
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		kb, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "Pss:":
			u.pss += kb / 1000
		case "Pss_Anon:":
			u.anonymous += kb / 1000
		}
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return usage{}, err
	}
	// Behind the name, which may hold anything: utime and stime are the 12th and 13th field, in ticks of 10 ms.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, i := range []int{11, 12} {
		ticks, _ := strconv.ParseInt(fields[i], 10, 64)
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	return u, nil
}

// measureRestart kills the server while 100 pods run, and starts it again.
func measureRestart(ctx context.Context, b *bench) ([]row, error) {
	c, err := b.start(ctx, "-restart")
	if err != nil {
		return nil, err
	}
	rows, err := b.restart(ctx, c)
	if downErr := c.down(); err == nil {
		err = downErr
	}
	return rows, err
}

func (b *bench) restart(ctx context.Context, c *ownCluster) ([]row, error) {
	const n = 100
	if err := c.load(ctx, b.archive); err != nil {
		return nil, err
	}
	config, client, err := newClient(c.Kubeconfig)
	if err != nil {
		return nil, err
	}
	if err := makeNamespace(ctx, client); err != nil {
		return nil, err
	}
	all := &bench{options: b.options, config: config, client: client}
	for i := range n {
		if _, err := client.CoreV1().Pods(namespace).Create(ctx, all.pod(fmt.Sprintf("pod-%d", i)), metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	up := map[string]bool{}
	err = all.waitPods(ctx, metav1.ListOptions{}, func(e watch.Event) bool {
		if running(e) {
			up[e.Object.(*corev1.Pod).Name] = true
		}
		return len(up) == n
	})
	if err != nil {
		return nil, fmt.Errorf("%d of %d pods run: %w", len(up), n, err)
	}
	pid, err := c.pid(ctx)
	if err != nil {
		return nil, err
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return nil, err
	}
	if err := waitEnd(ctx, pid); err != nil {
		return nil, err
	}
	c.Phases = nil
	if err := c.up(ctx); err != nil {
		return nil, err
	}
	restarts, err := countRestarts(ctx, client)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, p := range c.Phases {
		rows = append(rows, row{Name: fmt.Sprintf("kill -9 and restart with %d running pods → %s", n, p.Name), Unit: "ms", Values: []float64{p.Milliseconds}})
	}
	return append(rows, row{Name: "containers that were restarted", Values: []float64{float64(restarts)}}), nil
}

func waitEnd(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return err
		}
	}
	return ctx.Err()
}

func countRestarts(ctx context.Context, client kubernetes.Interface) (int, error) {
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, pod := range pods.Items {
		for _, s := range pod.Status.ContainerStatuses {
			n += int(s.RestartCount)
		}
	}
	return n, nil
}
