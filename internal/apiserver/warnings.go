package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// Limits of all warnings of one answer, and of each when all together are too long, in characters.
const (
	maxWarnings    = 4 << 10
	maxLongWarning = 256
)

// warnings collects the warnings of one request into headers of its answer. It implements warning.Recorder.
type warnings struct {
	header http.Header

	mu        sync.Mutex
	texts     []string
	written   int
	shortened bool // all are cut to maxLongWarning
}

// AddWarning adds a Warning header, once for every text.
func (w *warnings) AddWarning(agent, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text == "" || slices.Contains(w.texts, text) || w.shortened && w.written >= maxWarnings {
		return
	}
	w.texts = append(w.texts, text)
	if !w.shortened && w.written+utf8.RuneCountInString(text) > maxWarnings {
		w.shortened, w.written = true, 0
		w.header.Del("Warning")
		for _, earlier := range w.texts {
			w.write(agent, earlier)
		}
		return
	}
	w.write(agent, text)
}

func (w *warnings) write(agent, text string) {
	if runes := []rune(text); w.shortened && len(runes) > maxLongWarning {
		text = string(runes[:maxLongWarning])
	}
	if header, err := utilnet.NewWarningHeader(299, agent, text); err == nil {
		w.header.Add("Warning", header)
		w.written += utf8.RuneCountInString(text)
	}
}

// warnFlaw warns of what strict decoding found; the YAML decoder puts several flaws into one error.
func warnFlaw(ctx context.Context, flaw error) {
	text := flaw.Error()
	for _, prefix := range []string{"yaml: unmarshal errors:\n", "error converting YAML to JSON: yaml: unmarshal errors:\n"} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			for line := range strings.SplitSeq(rest, "\n") {
				warn(ctx, strings.TrimSpace(line))
			}
			return
		}
	}
	warn(ctx, text)
}

// dedupOwners drops owner references that occur twice, with a warning.
func dedupOwners(ctx context.Context, m metav1.Object, afterAdmission bool) {
	refs := m.GetOwnerReferences()
	if len(refs) < 2 {
		return
	}
	var kept []metav1.OwnerReference
	var twice []string
	for _, ref := range refs {
		same := func(other metav1.OwnerReference) bool { return apiequality.Semantic.DeepEqual(ref, other) }
		if slices.ContainsFunc(kept, same) {
			twice = append(twice, string(ref.UID))
			continue
		}
		kept = append(kept, ref)
	}
	if len(twice) == 0 {
		return
	}
	when := ""
	if afterAdmission {
		when = " after mutating admission happens"
	}
	warn(ctx, fmt.Sprintf(".metadata.ownerReferences contains duplicate entries%s; API server dedups owner references in 1.20+, "+
		"and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v", when, strings.Join(twice, ", ")))
	m.SetOwnerReferences(kept)
}
