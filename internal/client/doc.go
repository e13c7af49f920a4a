// Package client lets what runs inside the server process use the API as ordinary client-go code.
//
// What flows in is the API server's HTTP handler and its caches. What flows out are rest.Configs whose requests call the
// handler directly, without sockets, TLS or tokens, under an identity that is carried by the request's context (which no
// header can forge), and a standard SharedInformerFactory whose informers are fed by the server's caches: the objects
// that listers return are the very objects that the cache holds, shared by the whole process and never to be changed.
package client
