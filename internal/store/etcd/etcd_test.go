package etcd

import (
	"context"
	"testing"
	"time"
)

func TestStartTime(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		began := time.Now()
		s, err := Start(t.Context(), Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Log("started", time.Since(began))
		began = time.Now()
		for range 1000 {
			if _, err := s.Client().Put(context.Background(), "/registry/x", "y"); err != nil {
				t.Fatal(err)
			}
		}
		t.Log("per put", time.Since(began)/1000)
		began = time.Now()
		s.Close()
		t.Log("closed", time.Since(began))
	}
}
