package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/miekg/dns"
)

// dig asks the name servers of /etc/resolv.conf, through its search list: dig [+tcp] TYPE NAME. It prints a line for each answer.
func dig(ctx context.Context, args []string) error {
	transport := "udp"
	if len(args) > 0 && args[0] == "+tcp" {
		transport, args = "tcp", args[1:]
	}
	if len(args) != 2 {
		return errors.New("want [+tcp] TYPE NAME")
	}
	answers, err := lookUp(ctx, transport, args[0], args[1])
	for _, a := range answers {
		fmt.Println(a)
	}
	return err
}

// digHTTP does what dig does, for /dig?type=TYPE&name=NAME&transport=tcp.
func digHTTP(w http.ResponseWriter, r *http.Request) {
	answers, err := lookUp(r.Context(), r.FormValue("transport"), r.FormValue("type"), r.FormValue("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	fmt.Fprint(w, strings.Join(answers, "\n"))
}

// lookUp gives the records that answer a question, each as its type and what stands behind it.
func lookUp(ctx context.Context, transport, kind, name string) ([]string, error) {
	number, ok := dns.StringToType[strings.ToUpper(kind)]
	if !ok {
		return nil, fmt.Errorf("unknown type %q", kind)
	}
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	client := &dns.Client{Net: transport}
	code := dns.RcodeNameError
	for _, full := range config.NameList(name) {
		question := new(dns.Msg).SetQuestion(full, number)
		reply, _, err := client.ExchangeContext(ctx, question, net.JoinHostPort(config.Servers[0], config.Port))
		if err != nil {
			return nil, err
		}
		if code = reply.Rcode; code != dns.RcodeSuccess || len(reply.Answer) == 0 {
			continue
		}
		var answers []string
		for _, record := range reply.Answer {
			header := record.Header()
			answers = append(answers, dns.TypeToString[header.Rrtype]+" "+strings.TrimPrefix(record.String(), header.String()))
		}
		return answers, nil
	}
	return nil, fmt.Errorf("%s %s: no answer (%s)", kind, name, dns.RcodeToString[code])
}
