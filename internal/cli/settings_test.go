package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestSettings(t *testing.T) {
	for _, tc := range []struct {
		name    string
		args    []string
		env     []string
		file    string
		want    string // name, max-pods, tls-san
		wantErr string
	}{
		{name: "nothing set", want: "proa 110 []"},
		{name: "file", file: "name: a\nmax-pods: 20\ntls-san: [p, q]\n", want: "a 20 [p,q]"},
		{name: "list as one string", file: "tls-san: p,q\n", want: "proa 110 [p,q]"},
		{name: "environment before file", env: []string{"PROA_NAME=b", "HOME=/"}, file: "name: a\nmax-pods: 20\n", want: "b 20 []"},
		{name: "flag before environment and file", args: []string{"--name", "c"}, env: []string{"PROA_NAME=b"}, file: "name: a", want: "c 110 []"},
		{name: "key of another command", file: "json: true", want: "proa 110 []"},
		{name: "unknown key", file: "nmae: a", wantErr: `unknown key "nmae"`},
		{name: "unknown variable", env: []string{"PROA_NMAE=a"}, wantErr: `environment variable PROA_NMAE: there is no setting "nmae"`},
		{name: "bad value in file", file: "max-pods: many", wantErr: `key "max-pods": invalid argument "many"`},
		{name: "bad value in variable", env: []string{"PROA_MAX_PODS=many"}, wantErr: `environment variable PROA_MAX_PODS: invalid argument "many"`},
		{name: "list for one value", file: "name: [a]", wantErr: `key "name": must not be a list`},
		{name: "map", file: "name: {a: b}", wantErr: `key "name": must not be a map`},
		{name: "no value", file: "name:", wantErr: `key "name": has no value`},
		{name: "twice", file: "name: a\nname: b", wantErr: `"name" already set`},
		{name: "not YAML", file: "{", wantErr: "configuration file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(tc.file), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := &cobra.Command{}
			name := cmd.Flags().String("name", "proa", "")
			maxPods := cmd.Flags().Int("max-pods", 110, "")
			cmd.Flags().StringSlice("tls-san", nil, "")
			cmd.Flags().String("config", path, "")
			if err := cmd.ParseFlags(tc.args); err != nil {
				t.Fatal(err)
			}
			s := settings{environ: tc.env, known: map[string]bool{"name": true, "max-pods": true, "tls-san": true, "json": true}}
			err := s.apply(cmd)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("got error %v, want one with %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := *name + " " + cmd.Flags().Lookup("max-pods").Value.String() + " " + cmd.Flags().Lookup("tls-san").Value.String()
			if got != tc.want {
				t.Errorf("got %q (max-pods %d), want %q", got, *maxPods, tc.want)
			}
		})
	}
}

func TestConfigFileThatIsNamedMustExist(t *testing.T) {
	cmd := &cobra.Command{}
	cmd.Flags().String("config", filepath.Join(t.TempDir(), "none.yaml"), "")
	if err := (settings{}).apply(cmd); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}
