package etcd

import (
	"context"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// recorder notes the revision of everything that is acknowledged through a client. When that client is the only one
// there is, this is the present revision, as far as anybody can know; and it is had without the locks of etcd, which are
// held while its database is synced.
type recorder struct {
	clientv3.KV
	rev atomic.Int64
}

func (r *recorder) note(h *pb.ResponseHeader) {
	for {
		have := r.rev.Load()
		if h == nil || h.Revision <= have || r.rev.CompareAndSwap(have, h.Revision) {
			return
		}
	}
}

func (r *recorder) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	resp, err := r.KV.Put(ctx, key, val, opts...)
	if err == nil {
		r.note(resp.Header)
	}
	return resp, err
}

func (r *recorder) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	resp, err := r.KV.Get(ctx, key, opts...)
	if err == nil {
		r.note(resp.Header)
	}
	return resp, err
}

func (r *recorder) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	resp, err := r.KV.Delete(ctx, key, opts...)
	if err == nil {
		r.note(resp.Header)
	}
	return resp, err
}

func (r *recorder) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	resp, err := r.KV.Do(ctx, op)
	if err != nil {
		return resp, err
	}
	switch {
	case resp.Put() != nil:
		r.note(resp.Put().Header)
	case resp.Get() != nil:
		r.note(resp.Get().Header)
	case resp.Del() != nil:
		r.note(resp.Del().Header)
	case resp.Txn() != nil:
		r.note(resp.Txn().Header)
	}
	return resp, nil
}

func (r *recorder) Txn(ctx context.Context) clientv3.Txn {
	return &recordedTxn{r.KV.Txn(ctx), r}
}

type recordedTxn struct {
	txn clientv3.Txn
	r   *recorder
}

func (t *recordedTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	t.txn = t.txn.If(cs...)
	return t
}

func (t *recordedTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.txn = t.txn.Then(ops...)
	return t
}

func (t *recordedTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.txn = t.txn.Else(ops...)
	return t
}

func (t *recordedTxn) Commit() (*clientv3.TxnResponse, error) {
	resp, err := t.txn.Commit()
	if err == nil {
		t.r.note(resp.Header)
	}
	return resp, err
}
