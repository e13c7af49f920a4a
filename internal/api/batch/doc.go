// Package batch describes the kinds of the API group batch: jobs and cron jobs. What flows in are objects of k8s.io/api's
// types; what flows out are their descriptions for the catalogue.
package batch
