// Package cluster puts a server or an agent together from its parts, and takes a cluster away again.
//
// What flows in is a Config; what flows out are running components, the objects that a cluster begins with, and files for the
// administrator. Everything that is global on a host derives from the cluster's name and data directory (Layout).
package cluster
