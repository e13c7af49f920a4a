package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// DefaultConfigFile is read when it exists; --config names another, which must exist.
const DefaultConfigFile = "/etc/proa/config.yaml"

const envPrefix = "PROA_"

// settings gives the flags of a command their values: the command line first, then PROA_* variables, then the
// configuration file. The names are the same in all three: --data-dir, PROA_DATA_DIR, data-dir.
type settings struct {
	environ []string
	// known are the names of all settings of all commands: a file serves all of them, and a name that none of them has is a
	// mistake.
	known map[string]bool
}

func (s settings) apply(cmd *cobra.Command) error {
	set := map[string]string{} // where a flag's value comes from, for errors
	if err := s.applyEnv(cmd.Flags(), set); err != nil {
		return err
	}
	path, must := DefaultConfigFile, false
	if f := cmd.Flags().Lookup("config"); f != nil && f.Value.String() != "" {
		path, must = f.Value.String(), true
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return nil
	}
	if err != nil {
		return fmt.Errorf("configuration file: %w", err)
	}
	return s.applyFile(cmd.Flags(), path, data, set)
}

func (s settings) applyEnv(flags *pflag.FlagSet, set map[string]string) error {
	for _, kv := range s.environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		key := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, envPrefix)), "_", "-")
		if !s.known[key] {
			return fmt.Errorf("environment variable %s: there is no setting %q", name, key)
		}
		f := flags.Lookup(key)
		if f == nil || f.Changed {
			continue
		}
		if err := flags.Set(key, value); err != nil {
			return fmt.Errorf("environment variable %s: %w", name, err)
		}
		set[key] = name
	}
	return nil
}

func (s settings) applyFile(flags *pflag.FlagSet, path string, data []byte, set map[string]string) error {
	var values map[string]any
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		return fmt.Errorf("configuration file %s: %w", path, err)
	}
	for _, key := range sortedKeys(values) {
		if !s.known[key] {
			return fmt.Errorf("configuration file %s: unknown key %q", path, key)
		}
		f := flags.Lookup(key)
		if f == nil || f.Changed || set[key] != "" {
			continue
		}
		if err := setValue(flags, f, values[key]); err != nil {
			return fmt.Errorf("configuration file %s: key %q: %w", path, key, err)
		}
	}
	return nil
}

// setValue sets a flag to a value of a YAML document: a scalar, or a list for a flag that takes several.
func setValue(flags *pflag.FlagSet, f *pflag.Flag, value any) error {
	switch v := value.(type) {
	case nil:
		return errors.New("has no value")
	case map[string]any:
		return errors.New("must not be a map")
	case []any:
		several, ok := f.Value.(pflag.SliceValue)
		if !ok {
			return errors.New("must not be a list")
		}
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = fmt.Sprint(item)
		}
		f.Changed = true
		return several.Replace(items)
	case float64: // every number of a YAML document
		return flags.Set(f.Name, strings.TrimSuffix(fmt.Sprintf("%f", v), ".000000"))
	default:
		return flags.Set(f.Name, fmt.Sprint(v))
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
