// Package demo is the small shop that 'periplus up' runs, storefront -> catalog -> inventory, and the visitors that
// keep it busy. It is an ordinary application: it knows the mesh only as a proxy address to send requests to.
//
// Every answer says where it was made and what it took, so that anybody can see where a request went.
package demo
