// Package cli is the command line of proa: commands, their flags, and where flags get their values from.
//
// What flows in are arguments, PROA_* variables and the configuration file; what flows out are calls of package cluster,
// and text for a person or JSON for a program.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/proa-k8s/proa/internal/cluster"
)

// exitError ends the program with a code of its own after the error was shown, or without a word when err is nil.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

// Main runs the command that args name and returns the exit code: 0, 1 when something went wrong, 2 when the command line or
// the configuration is wrong.
func Main(args, environ []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	root := newRoot(environ)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintln(os.Stderr, "proa:", exit.err)
		}
		return exit.code
	default:
		fmt.Fprintln(os.Stderr, "proa:", err)
		return 1
	}
}

func newRoot(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "proa",
		Short:         "Kubernetes in one binary",
		Long:          "Proa is Kubernetes in one binary, light and fast.\n\nStart a cluster with 'proa up', use it with 'proa kubectl' or any Kubernetes client, remove it with 'proa down'.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newUp(), newDown(), newStatus(),
		newServer(), newAgent(),
		newKubectl(), newImage(), newVersion(),
	)
	s := settings{environ: environ, known: map[string]bool{}}
	walk(root, func(cmd *cobra.Command) {
		cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitError{2, err} })
		if cmd.DisableFlagParsing {
			return
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { s.known[f.Name] = true })
		if cmd.RunE == nil {
			return
		}
		cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
			if err := s.apply(cmd); err != nil {
				return exitError{2, err}
			}
			return nil
		}
	})
	return root
}

func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

// place says which cluster of this machine a command is about.
type place struct {
	name, dataDir, config string
}

func (p *place) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&p.name, "name", cluster.DefaultName, "name of the cluster; several can live on one machine")
	flags.StringVar(&p.dataDir, "data-dir", "", "where the cluster keeps its data (default /var/lib/proa/NAME)")
	flags.StringVar(&p.config, "config", "", "configuration file with flags as keys (default "+DefaultConfigFile+")")
}

func (p *place) layout() (cluster.Layout, error) {
	l, err := cluster.NewLayout(p.name, p.dataDir)
	if err != nil {
		return l, exitError{2, err}
	}
	return l, nil
}

// needRoot fails unless the program may do what a cluster needs.
func needRoot(what string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s needs root: it makes network interfaces, mounts and cgroups; try again with sudo", what)
	}
	return nil
}

func printf(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
