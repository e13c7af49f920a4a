package apiserver

import (
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
)

// table prints objects of one endpoint as rows.
type table struct {
	ep      *endpoint
	gv      schema.GroupVersion // of the Table
	include metav1.IncludeObjectPolicy
	headers bool
}

// newTable reads the options of a table from the query.
func (q *request) newTable() (*table, error) {
	var o metav1.TableOptions
	values := q.query()
	if err := metav1.Convert_url_Values_To_v1_TableOptions(&values, &o, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if errs := metav1validation.ValidateTableOptions(&o); len(errs) == 1 {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("Unable to convert to Table as requested: %v", errs[0].Error()))
	} else if len(errs) > 1 {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("Unable to convert to Table as requested: %v", errs))
	}
	return &table{ep: q.ep, gv: q.media.Convert.GroupVersion(), include: o.IncludeObject, headers: true}, nil
}

// columns of a resource that describes none are those of upstream's default.
func (t *table) columns() []metav1.TableColumnDefinition {
	if t.ep.Row != nil {
		return t.ep.Columns
	}
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
		{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
	}
}

func (t *table) cells(hub runtime.Object) ([]any, error) {
	if t.ep.Row != nil {
		return t.ep.Row(hub), nil
	}
	m, err := meta.Accessor(hub)
	if err != nil {
		return nil, err
	}
	return []any{m.GetName(), m.GetCreationTimestamp().UTC().Format(time.RFC3339)}, nil
}

// row prints an object of the hub type.
func (t *table) row(hub runtime.Object) (metav1.TableRow, error) {
	cells, err := t.cells(hub)
	if err != nil {
		return metav1.TableRow{}, err
	}
	row := metav1.TableRow{Cells: cells}
	switch t.include {
	case metav1.IncludeNone:
	case metav1.IncludeObject:
		row.Object.Object, err = codec.FromHub(t.ep.Resource, t.ep.version, hub)
	default:
		row.Object.Object, err = partial(hub, t.gv)
	}
	return row, err
}

// head makes a table without rows.
func (t *table) head(rev string) *metav1.Table {
	head := &metav1.Table{Rows: []metav1.TableRow{}}
	head.SetGroupVersionKind(t.gv.WithKind("Table"))
	head.ResourceVersion = rev
	if t.headers {
		head.ColumnDefinitions = t.columns()
	}
	return head
}

// of makes the table of one object.
func (t *table) of(hub runtime.Object) (*metav1.Table, error) {
	m, err := meta.Accessor(hub)
	if err != nil {
		return nil, err
	}
	row, err := t.row(hub)
	if err != nil {
		return nil, err
	}
	whole := t.head(m.GetResourceVersion())
	whole.Rows = append(whole.Rows, row)
	return whole, nil
}

// rowJSON is one row of a streamed table.
func (t *table) rowJSON(hub runtime.Object) ([]byte, error) {
	row, err := t.row(hub)
	if err != nil {
		return nil, err
	}
	return json.Marshal(row)
}
