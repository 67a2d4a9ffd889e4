// A name -> "seconds, tab, error or nothing, tab, addresses": what Go's own resolver says of it.
package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	from := time.Now()
	found, err := net.LookupHost(os.Args[1])
	took := time.Since(from).Seconds()
	text := ""
	if err != nil {
		text = err.Error()
	}
	fmt.Printf("%.6f\t%s\t%s", took, text, strings.Join(found, " "))
}
