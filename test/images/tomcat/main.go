// Command tomcat stands in for the application server of that name in stories: it answers on port 8080 with its version,
// and with 404 for everything but the start page.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	version := os.Getenv("TOMCAT_VERSION")
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		os.Exit(143) // as a Java virtual machine does
	}()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html;charset=UTF-8")
		if r.URL.Path != "/" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, "<!doctype html><html><head><title>HTTP Status 404 – Not Found</title></head>"+
				"<body><h1>HTTP Status 404 – Not Found</h1><hr><h3>Apache Tomcat/%s</h3></body></html>\n", version)
			return
		}
		fmt.Fprintf(w, "<!DOCTYPE html><html><head><title>Apache Tomcat/%[1]s</title></head>"+
			"<body><h1>Apache Tomcat/%[1]s</h1></body></html>\n", version)
	})
	log.Printf("Server startup: Apache Tomcat/%s on port 8080", version)
	log.Fatal(http.ListenAndServe(":8080", nil))
}
