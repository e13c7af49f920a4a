// Command bench measures a cluster as its users notice it: how long until pods run and are gone, how fast the API is, what
// the cluster costs.
//
// Without --kubeconfig it starts clusters of Proa's of its own, and also measures boot, idle and restart. With --kubeconfig it
// does the same work against any Kubernetes cluster, so that two can be compared as ratios in one run. It prints a table,
// and JSON with --json.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// options are the flags.
type options struct {
	kubeconfig string
	proa       string
	image      string
	archive    string
	jsonFile   string
	rows       *regexp.Regexp
	pods       int
	watchers   int
	idle       time.Duration
}

// row is one line of the table: one or more values of one unit.
type row struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Labels []string  `json:"labels,omitempty"` // of the values: p50, p99
	Values []float64 `json:"values"`
	Error  string    `json:"error,omitempty"`
}

// A measurement fills one or more rows. own says that it needs a cluster of Proa's that it may start, kill and look into.
type measurement struct {
	name string
	own  bool
	run  func(ctx context.Context, b *bench) ([]row, error)
}

func measurements() []measurement {
	return []measurement{
		{"boot", true, measureBoot},
		{"idle", true, measureIdle},
		{"pods", false, measurePods},
		{"burst", false, measureBurst},
		{"deployment", false, measureDeployment},
		{"create", false, measureCreate},
		{"list", false, measureList},
		{"watch", false, measureWatch},
		{"scheduler", false, measureScheduler},
		{"service", false, measureService},
		{"restart", true, measureRestart},
	}
}

func main() {
	o := options{}
	var rows string
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "measure this cluster instead of Proa")
	flag.StringVar(&o.proa, "proa", "bin/proa", "the binary to measure")
	flag.StringVar(&o.image, "image", "proa.local/hello:1", "image that pods run; must be on the node")
	flag.StringVar(&o.archive, "archive", "build/images/hello.tar", "archive to load the image from")
	flag.StringVar(&o.jsonFile, "json", "", "write the rows as JSON to this file; - is standard output")
	flag.StringVar(&rows, "rows", "", "run only the measurements whose names match: "+strings.Join(names(), ", "))
	flag.IntVar(&o.pods, "pods", 30000, "pods in the lists")
	flag.IntVar(&o.watchers, "watchers", 1000, "watchers of one object")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "how long to look at an idle cluster")
	flag.Parse()
	var err error
	if o.rows, err = regexp.Compile(rows); err != nil {
		fmt.Fprintln(os.Stderr, "bench: --rows:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err = run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func names() []string {
	var all []string
	for _, m := range measurements() {
		all = append(all, m.name)
	}
	return all
}

func run(ctx context.Context, o options) (err error) {
	b := &bench{options: o}
	defer func() {
		if downErr := b.down(); err == nil {
			err = downErr
		}
	}()
	var all []row
	for _, m := range measurements() {
		if !o.rows.MatchString(m.name) || m.own && o.kubeconfig != "" {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s ...\n", m.name)
		rows, err := m.run(ctx, b)
		if err != nil {
			rows = append(rows, row{Name: m.name, Error: err.Error()})
		}
		all = append(all, rows...)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if o.jsonFile != "-" {
		if err := printTable(os.Stdout, all); err != nil {
			return err
		}
	}
	return writeJSON(o.jsonFile, all)
}

func printTable(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tUNIT\tMEASURED")
	for _, r := range rows {
		if r.Error != "" {
			fmt.Fprintf(t, "%s\t\tfailed: %s\n", r.Name, r.Error)
			continue
		}
		var values []string
		for i, v := range r.Values {
			s := formatValue(v)
			if i < len(r.Labels) {
				s = r.Labels[i] + " " + s
			}
			values = append(values, s)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Name, r.Unit, strings.Join(values, ", "))
	}
	return t.Flush()
}

func formatValue(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 1:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func writeJSON(path string, rows []row) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if path == "-" {
		_, err = os.Stdout.Write(data)
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
