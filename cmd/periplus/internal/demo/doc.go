// Package demo is the commands that run the shop of 'periplus up' and its visitors.
package demo
