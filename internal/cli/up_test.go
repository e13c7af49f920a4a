package cli

import (
	"slices"
	"strings"
	"testing"
)

// TestUpDefaults looks at what proa up passes to its server.
func TestUpDefaults(t *testing.T) {
	for name, test := range map[string]struct {
		args       []string
		want, lack []string
	}{
		"nothing set": {nil, []string{"--eviction-hard=nodefs.available<5%", "--eviction-hard=imagefs.available<5%", "--image-gc-high-threshold=95", "--image-gc-low-threshold=90"}, nil},
		"thresholds set": {[]string{"--eviction-hard", "memory.available<1Gi"},
			[]string{"--eviction-hard=memory.available<1Gi", "--image-gc-low-threshold=90"}, []string{"--eviction-hard=nodefs.available<5%"}},
		// The server's own default for the other one fits better than ours.
		"one of two set": {[]string{"--image-gc-high-threshold", "85"},
			[]string{"--image-gc-high-threshold=85"}, []string{"--image-gc-low-threshold=90"}},
	} {
		flags := newUp().Flags()
		if err := flags.Parse(test.args); err != nil {
			t.Fatal(err)
		}
		if err := setUpDefaults(flags); err != nil {
			t.Fatal(err)
		}
		got := serverArgs(flags)
		for _, arg := range test.want {
			if !slices.Contains(got, arg) {
				t.Errorf("%s: %v lacks %s", name, got, arg)
			}
		}
		for _, arg := range test.lack {
			if slices.Contains(got, arg) {
				t.Errorf("%s: %v has %s", name, got, arg)
			}
		}
	}
	if usage := newUp().Flags().Lookup("eviction-hard").Usage; !strings.Contains(usage, "imagefs.available<5%") {
		t.Errorf("the help does not say what is set: %s", usage)
	}
	if usage := newServer().Flags().Lookup("eviction-hard").Usage; strings.Contains(usage, "imagefs.available<5%") {
		t.Errorf("the server has the defaults of proa up: %s", usage)
	}
}
