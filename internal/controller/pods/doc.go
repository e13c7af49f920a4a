// Package pods is what controllers that own pods share: making pods from templates, creating them in growing batches,
// knowing which writes the informer hasn't shown yet, telling ready and available pods, and choosing which to delete
// first.
package pods
