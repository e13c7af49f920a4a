package apiserver

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
)

// continuation is what a continue token says: where a list goes on, and in which state. Rev -1 is the latest state, in
// tokens that replace expired ones. Its form is upstream's.
type continuation struct {
	Version string `json:"v"`
	Rev     int64  `json:"rv"`
	// Start is the first key of the rest: the last key of the page before with a zero byte behind it.
	Start string `json:"start"`
}

const continuationVersion = "meta.k8s.io/v1"

// encodeContinue makes the token for what follows a key ("<namespace>/<name>", or "<name>").
func encodeContinue(lastKey string, rev int64) string {
	data, err := json.Marshal(continuation{continuationVersion, rev, lastKey + "\x00"})
	if err != nil {
		panic(err) // strings and numbers are always encodable
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// decodeContinue reads a token: the key that the list goes on behind.
func decodeContinue(token string) (lastKey string, rev int64, err error) {
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", 0, fmt.Errorf("continue key is not valid: %w", err)
	}
	var c continuation
	if err := json.Unmarshal(data, &c); err != nil {
		return "", 0, fmt.Errorf("continue key is not valid: %w", err)
	}
	switch {
	case c.Version != continuationVersion:
		return "", 0, fmt.Errorf("continue key is not valid: server does not recognize this encoded version %v", c.Version)
	case c.Rev == 0:
		return "", 0, errors.New("continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	case c.Start == "":
		return "", 0, errors.New("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)")
	}
	key := "/" + strings.TrimPrefix(c.Start, "/")
	if path.Clean(key) != key {
		return "", 0, fmt.Errorf("continue key is not valid: %v", c.Start)
	}
	return strings.TrimSuffix(key[1:], "\x00"), c.Rev, nil
}
