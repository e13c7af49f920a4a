package logs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const prefix = "2026-01-01T00:00:00.000000000Z stdout "

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	var b strings.Builder
	for range 1000 {
		b.WriteString(prefix + "F an old line\n")
	}
	b.WriteString(prefix + "P one ")
	b.WriteString("\n" + prefix + "F line\n" + prefix + "F last\n")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Tail(path, 3, 2048); got != "one line\nlast\n" {
		t.Errorf("got %q", got)
	}
	if got := Tail(path, 80, 7); got != "e\nlast\n" {
		t.Errorf("got %q", got)
	}
	if got := Tail(path+"x", 1, 1); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestRotate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	reopen := func(context.Context) error { return os.WriteFile(path, nil, 0o600) }
	names := func() string {
		entries, _ := os.ReadDir(dir)
		var list []string
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return strings.Join(list, " ")
	}
	for name, content := range map[string]string{
		"0.log": strings.Repeat("x", 100), "0.log.20250101-000000.gz": "", "0.log.20250102-000000.gz": "", "0.log.20250103-000000": "text", "0.log.20250103-000000.tmp": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Rotate(t.Context(), path, 101, 4, reopen); err != nil || len(strings.Fields(names())) != 5 {
		t.Errorf("a small log was touched: %v, %s", err, names())
	}
	if err := Rotate(t.Context(), path, 100, 4, reopen); err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(names())
	if len(got) != 4 || got[0] != "0.log" || got[1] != "0.log.20250102-000000.gz" || got[2] != "0.log.20250103-000000.gz" || strings.HasSuffix(got[3], ".gz") {
		t.Errorf("files are %v", got)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("the log was not reopened: %v", err)
	}
}
