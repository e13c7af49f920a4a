package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// dig asks the name servers of /etc/resolv.conf, through its search list: dig [+tcp] TYPE NAME. It prints a line for each answer.
func dig(ctx context.Context, args []string) error {
	client := new(dns.Client)
	if len(args) > 0 && args[0] == "+tcp" {
		client.Net, args = "tcp", args[1:]
	}
	if len(args) != 2 {
		return errors.New("want [+tcp] TYPE NAME")
	}
	kind, ok := dns.StringToType[strings.ToUpper(args[0])]
	if !ok {
		return fmt.Errorf("unknown type %q", args[0])
	}
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	code := dns.RcodeNameError
	for _, name := range config.NameList(args[1]) {
		question := new(dns.Msg).SetQuestion(name, kind)
		answer, _, err := client.ExchangeContext(ctx, question, net.JoinHostPort(config.Servers[0], config.Port))
		if err != nil {
			return err
		}
		if code = answer.Rcode; code == dns.RcodeSuccess && len(answer.Answer) > 0 {
			for _, record := range answer.Answer {
				fmt.Println(data(record))
			}
			return nil
		}
	}
	return fmt.Errorf("%s %s: no answer (%s)", args[0], args[1], dns.RcodeToString[code])
}

// data is what follows the name, the lifetime, the class and the type of a record; the type stands before it.
func data(record dns.RR) string {
	header := record.Header()
	return dns.TypeToString[header.Rrtype] + " " + strings.TrimPrefix(record.String(), header.String())
}
