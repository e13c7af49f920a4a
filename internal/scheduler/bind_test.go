package scheduler_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"github.com/proa-k8s/proa/internal/controller/controllertest"
	"github.com/proa-k8s/proa/internal/scheduler"
)

// interposed calls before with every request, which fails or goes on; and after with every answer.
type interposed struct {
	http.RoundTripper
	before, after func(*http.Request) error
}

func (i interposed) RoundTrip(r *http.Request) (*http.Response, error) {
	if i.before != nil {
		if err := i.before(r); err != nil {
			return nil, err
		}
	}
	answer, err := i.RoundTripper.RoundTrip(r)
	if err == nil && i.after != nil {
		if err := i.after(r); err != nil {
			answer.Body.Close()
			return nil, err
		}
	}
	return answer, err
}

func startInterposed(t *testing.T, i interposed) *cluster {
	t.Helper()
	c := &cluster{controllertest.Start(t)}
	config := c.REST(&user.DefaultInfo{Name: user.KubeScheduler, Groups: []string{user.AllAuthenticated}})
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper {
		i.RoundTripper = rt
		return i
	})
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	c.run(t, scheduler.Config{Client: client, Informers: c.Informers})
	return c
}

func isBind(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/binding") }

func TestBindingIsTriedAgain(t *testing.T) {
	var failures atomic.Int32
	c := startInterposed(t, interposed{before: func(r *http.Request) error {
		if isBind(r) && failures.Add(1) == 1 {
			return errors.New("no way")
		}
		return nil
	}})
	c.node(t, "n1", "1")
	c.create(t, pod("p", "1"))
	c.waitPod(t, "p", "to tell of the error", func(p *corev1.Pod) bool {
		cond := condition(p, corev1.PodScheduled)
		return cond != nil && cond.Reason == corev1.PodReasonSchedulerError && strings.Contains(cond.Message, "no way")
	})
	c.waitBound(t, "p") // what was assumed is free again
}

// TestLostAnswer: the binding was done, only its answer got lost. The pod is neither given up nor counted twice.
func TestLostAnswer(t *testing.T) {
	var binds atomic.Int32
	c := startInterposed(t, interposed{after: func(r *http.Request) error {
		if isBind(r) && binds.Add(1) == 1 {
			return errors.New("the line is dead")
		}
		return nil
	}})
	c.node(t, "n1", "1")
	c.create(t, pod("p", "500m"))
	c.waitEvent(t, "p", "Scheduled", "Successfully assigned default/p to n1")
	c.create(t, pod("q", "500m"))
	c.waitBound(t, "q")
	if n := binds.Load(); n != 2 {
		t.Errorf("%d bindings for two pods", n)
	}
}

func TestConfig(t *testing.T) {
	c := controllertest.Start(t)
	good := scheduler.Config{Client: c.Admin, Informers: c.Informers}
	tests := map[string]struct {
		change func(*scheduler.Config)
		want   string
	}{
		"no client": {func(c *scheduler.Config) { c.Client = nil }, "a client and informers are needed"},
		"no name":   {func(c *scheduler.Config) { c.Profiles = []scheduler.Profile{{}} }, "a profile needs a scheduler name"},
		"the same name": {func(c *scheduler.Config) {
			c.Profiles = []scheduler.Profile{{SchedulerName: "a"}, {SchedulerName: "a"}}
		}, `two profiles are called "a"`},
		"percentage": {func(c *scheduler.Config) {
			c.Profiles = []scheduler.Profile{{SchedulerName: "a", PercentageOfNodesToScore: 101}}
		}, `percentageOfNodesToScore of "a": 101 is not in the range 0-100`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			config := good
			test.change(&config)
			if _, err := scheduler.New(config); err == nil || !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}
