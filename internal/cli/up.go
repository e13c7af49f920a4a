package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-k8s/proa/internal/cluster"
)

// upResult is what proa up --json prints.
type upResult struct {
	Name       string          `json:"name"`
	Kubeconfig string          `json:"kubeconfig"`
	Server     string          `json:"server"` // URL of the API
	Phases     []cluster.Phase `json:"phases"`
}

func newUp() *cobra.Command {
	var f serverFlags
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster in the background and return when it is ready",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot("proa up"); err != nil {
				return err
			}
			if err := setUpDefaults(cmd.Flags()); err != nil {
				return err
			}
			l, err := f.layout()
			if err != nil {
				return err
			}
			f.server.Layout = l
			if err := f.server.Validate(); err != nil {
				return exitError{2, err}
			}
			if _, err := f.logger(); err != nil {
				return err
			}
			if pid := cluster.Running(l); pid != 0 {
				return fmt.Errorf("cluster %q is running already (process %d): use it with 'proa kubectl%s', or end it with 'proa down%s'", l.Name, pid, nameFlag(l), nameFlag(l))
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("the cluster was not ready after %s; its log is %s", timeout, l.LogFile()))
			defer cancel()
			progress := cmd.OutOrStdout()
			if asJSON {
				progress = cmd.ErrOrStderr()
			}
			result, err := up(ctx, l, serverArgs(cmd.Flags()), progress)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(result)
			}
			printf(progress, "\nThe cluster %q is ready at %s\n\n  export KUBECONFIG=%s\n  proa kubectl%s get nodes\n  proa down%s\n", result.Name, result.Server, result.Kubeconfig, nameFlag(l), nameFlag(l))
			return nil
		},
	}
	f.addFlags(cmd.Flags())
	for _, group := range upDefaults() {
		for name, value := range group {
			flag := cmd.Flags().Lookup(name)
			flag.Usage += "; here " + value + " unless set"
		}
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print name, kubeconfig, URL of the API and how long each phase took as JSON")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait until the cluster is ready")
	return cmd
}

// upDefaults are what a development cluster has other defaults of than a server: the disk of a laptop is often fuller than
// that of a server, and what would be evicted or removed is what somebody works on. Of each group all are set, or none.
func upDefaults() []map[string]string {
	return []map[string]string{
		{"eviction-hard": "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,imagefs.available<5%,imagefs.inodesFree<5%"},
		{"image-gc-high-threshold": "95", "image-gc-low-threshold": "90"},
	}
}

// setUpDefaults sets the groups of upDefaults of which nothing was set.
func setUpDefaults(flags *pflag.FlagSet) error {
	for _, group := range upDefaults() {
		changed := false
		for name := range group {
			changed = changed || flags.Changed(name)
		}
		for name, value := range group {
			if changed {
				continue
			}
			if err := flags.Set(name, value); err != nil {
				return fmt.Errorf("the default of --%s: %w", name, err)
			}
		}
	}
	return nil
}

// nameFlag is how other commands are told of this cluster: nothing for the default one.
func nameFlag(l cluster.Layout) string {
	if l.Name == cluster.DefaultName {
		return ""
	}
	return " --name " + l.Name
}

// serverArgs gives the flags that were set on the command line to the server; it reads variables and the file itself.
func serverArgs(flags *pflag.FlagSet) []string {
	args := []string{"server"}
	flags.Visit(func(f *pflag.Flag) {
		switch several, ok := f.Value.(pflag.SliceValue); {
		case f.Name == "json" || f.Name == "timeout":
		case ok:
			for _, v := range several.GetSlice() {
				args = append(args, "--"+f.Name+"="+v)
			}
		default:
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// up starts the server and waits until it says that it is ready. If it does not come to that, the server is ended; what
// it left is for proa down, or for the next start to go on with.
func up(ctx context.Context, l cluster.Layout, args []string, progress io.Writer) (*upResult, error) {
	if err := l.MakeDirs(); err != nil {
		return nil, err
	}
	listener, err := cluster.Listen()
	if err != nil {
		return nil, fmt.Errorf("waiting for the cluster: %w", err)
	}
	defer listener.Close()
	server, err := startServer(l, args, listener.Env())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	died := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		defer close(died)
		err := server.Wait()
		cancel(fmt.Errorf("the cluster ended while it started (%v)%s", err, lastLines(l.LogFile())))
	})

	result := &upResult{Name: l.Name, Kubeconfig: l.AdminKubeconfig()}
	err = listener.Wait(ctx, func(p cluster.Phase) {
		result.Phases = append(result.Phases, p)
		printf(progress, "%-24s %5d ms\n", p.Name, p.Milliseconds)
	})
	if err != nil {
		_ = server.Process.Signal(syscall.SIGTERM)
		waiting.Wait()
		return nil, err
	}
	// The server goes on without us: nobody waits for it any more.
	result.Server, err = cluster.ServerURL(l)
	return result, err
}

// startServer starts this program as a server in a session of its own, with its output in the log file.
func startServer(l cluster.Layout, args []string, env string) (*exec.Cmd, error) {
	log, err := os.OpenFile(l.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), env)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the server: %w", err)
	}
	return cmd, nil
}

// lastLines quotes the end of the log for an error message.
func lastLines(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	lines = lines[max(0, len(lines)-10):]
	return fmt.Sprintf("; the end of its log, %s:\n%s", path, bytes.Join(lines, []byte("\n")))
}

func newDown() *cobra.Command {
	var p place
	var keepData bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End a cluster and remove every trace of it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot("proa down"); err != nil {
				return err
			}
			l, err := p.layout()
			if err != nil {
				return err
			}
			if err := cluster.Down(cmd.Context(), l, keepData); err != nil {
				return fmt.Errorf("not everything of cluster %q could be removed; try again, it goes on where it stopped: %w", l.Name, err)
			}
			return nil
		},
	}
	p.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&keepData, "keep-data", false, "keep the data directory, so that 'proa up' goes on with the same objects")
	return cmd
}

func newStatus() *cobra.Command {
	var p place
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether a cluster runs and is healthy; the exit code is 0 if so",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := p.layout()
			if err != nil {
				return err
			}
			s, err := cluster.GetStatus(cmd.Context(), l)
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			} else {
				printStatus(cmd.OutOrStdout(), s)
			}
			if err == nil && !s.Healthy() {
				err = exitError{code: 1}
			}
			return err
		},
	}
	p.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the status as JSON")
	return cmd
}

func printStatus(w io.Writer, s *cluster.Status) {
	if s.PID == 0 {
		printf(w, "%s: not running\n", s.Name)
		return
	}
	printf(w, "%s: process %d\n", s.Name, s.PID)
	printf(w, "API:        %s %s\n", s.Server, errorOr(s.APIError, "ready"))
	printf(w, "kubeconfig: %s\n", s.Kubeconfig)
	for _, n := range s.Nodes {
		printf(w, "node:       %s %s\n", n.Name, errorOr(n.Problem, "ready"))
	}
}

func errorOr(problem, otherwise string) string {
	if problem != "" {
		return problem
	}
	return otherwise
}
