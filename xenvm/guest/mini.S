/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A 64-bit Xen PV kernel that exists to end: it starts in a few
 * milliseconds, waits, and shuts down with any reason on demand.
 *
 * Command line:   end=C     how to end (one character, below)
 *                 after=MS  end that many milliseconds after the start
 *
 * Characters, on the command line or typed at its console at any time:
 *   0..9  shutdown with that reason (0 poweroff, 1 reboot, 2 suspend,
 *         3 crash, 4 watchdog ...)
 *   f     an invalid instruction, which Xen answers by crashing the domain
 *   other nothing; without an ending the guest waits at its console for ever
 *
 * It prints "mini: up" when it listens.  After a suspend that the toolstack
 * cancels (a checkpoint), it prints "mini: resumed" and listens again.  It
 * can't be restored elsewhere: it keeps machine frames and never re-reads them.
 *
 * Invariants: one vCPU, events stay masked (waiting is SCHEDOP_poll on the
 * console's port), %rbx holds the start_info page for the whole run, and the
 * two foreign pages replace this kernel's own pages of the same addresses.
 */

        .set    UPDATE_VA_MAPPING, 14
        .set    SCHED_OP, 29
        .set    EVENT_CHANNEL_OP, 32

        .set    SCHEDOP_SHUTDOWN, 2
        .set    SCHEDOP_POLL, 3
        .set    EVTCHNOP_SEND, 4
        .set    REASON_CRASH, 3

        /* struct start_info */
        .set    SI_SHARED_INFO, 40
        .set    SI_CONSOLE_MFN, 72
        .set    SI_CONSOLE_PORT, 80
        .set    SI_CMD_LINE, 128

        /* struct shared_info: vcpu_info[0].time, evtchn_pending */
        .set    TIME_VERSION, 32
        .set    TIME_TSC, 40
        .set    TIME_SYSTEM, 48
        .set    TIME_MUL, 56
        .set    TIME_SHIFT, 60
        .set    EVTCHN_PENDING, 2048

        /* struct xencons_interface */
        .set    RING_IN, 0
        .set    RING_OUT, 1024
        .set    RING_IN_CONS, 3072
        .set    RING_IN_PROD, 3076
        .set    RING_OUT_PROD, 3084

        .set    PTE_RW, 0x67            /* present, writable, user, accessed, dirty */
        .set    UVMF_INVLPG, 2

        .macro  hypercall number
        call    hypercall_page + \number * 32
        .endm

        .text
        .globl  start
start:
        cld
        mov     %rsi, %rbx

        /* Put the shared info page and the console ring where we can see them. */
        lea     shared_info(%rip), %rdi
        mov     SI_SHARED_INFO(%rbx), %rsi
        call    map_frame
        lea     console(%rip), %rdi
        mov     SI_CONSOLE_MFN(%rbx), %rsi
        shl     $12, %rsi
        call    map_frame

        lea     key_end(%rip), %rdi
        call    find_option
        test    %rax, %rax
        jz      1f
        mov     (%rax), %al
        mov     %al, ending(%rip)
1:
        lea     key_after(%rip), %rdi
        call    find_option
        test    %rax, %rax
        jz      2f
        mov     %rax, %rsi
        call    parse_decimal           /* milliseconds in %rax */
        imul    $1000000, %rax, %r12
        call    now
        add     %r12, %rax
        mov     %rax, deadline(%rip)
2:
        lea     text_up(%rip), %rsi
        call    print

        /* Sleep until someone types or the deadline is there. */
listen:
        mov     SI_CONSOLE_PORT(%rbx), %eax
        lock btr %rax, shared_info + EVTCHN_PENDING(%rip)

        lea     console(%rip), %rdi
        mov     RING_IN_CONS(%rdi), %ecx
        cmp     RING_IN_PROD(%rdi), %ecx
        je      3f
        mov     %ecx, %edx
        and     $1023, %edx
        mov     RING_IN(%rdi,%rdx), %al
        inc     %ecx
        mov     %ecx, RING_IN_CONS(%rdi)
        call    end_as
        jmp     listen
3:
        cmpq    $0, deadline(%rip)
        je      4f
        call    now
        cmp     deadline(%rip), %rax
        jb      4f
        movq    $0, deadline(%rip)
        mov     ending(%rip), %al
        call    end_as
        jmp     listen
4:
        mov     SI_CONSOLE_PORT(%rbx), %eax
        mov     %eax, poll_port(%rip)
        mov     deadline(%rip), %rax    /* 0 means no limit, to Xen too */
        mov     %rax, poll_timeout(%rip)
        mov     $SCHEDOP_POLL, %edi
        lea     poll(%rip), %rsi
        hypercall SCHED_OP
        jmp     listen

/* End as the character in %al says.  Returns if it says nothing, or after a
 * suspend that was cancelled. */
end_as:
        cmp     $'f', %al
        je      5f
        sub     $'0', %al
        cmp     $9, %al
        ja      6f
        movzx   %al, %eax
        mov     %eax, reason(%rip)
        mov     $SCHEDOP_SHUTDOWN, %edi
        lea     reason(%rip), %rsi
        hypercall SCHED_OP
        cmp     $1, %eax                /* 1: the suspend was cancelled */
        jne     7f
        lea     text_resumed(%rip), %rsi
        jmp     print
5:      ud2
6:      ret
7:      movl    $REASON_CRASH, reason(%rip)
        mov     $SCHEDOP_SHUTDOWN, %edi
        lea     reason(%rip), %rsi
        hypercall SCHED_OP
        ud2

/* Map the frame at machine address %rsi in place of the page at %rdi. */
map_frame:
        or      $PTE_RW, %rsi
        mov     $UVMF_INVLPG, %edx
        hypercall UPDATE_VA_MAPPING
        test    %rax, %rax
        jnz     5b
        ret

/* Xen's system time in ns, in %rax. */
now:
        lea     shared_info(%rip), %r8
8:      mov     TIME_VERSION(%r8), %r9d
        test    $1, %r9d                /* odd: Xen is writing */
        jnz     8b
        lfence
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        sub     TIME_TSC(%r8), %rax
        movsx   TIME_SHIFT(%r8), %ecx
        test    %ecx, %ecx
        js      9f
        shl     %cl, %rax
        jmp     10f
9:      neg     %ecx
        shr     %cl, %rax
10:     mov     TIME_MUL(%r8), %edx
        mul     %rdx
        shrd    $32, %rdx, %rax
        add     TIME_SYSTEM(%r8), %rax
        lfence
        cmp     TIME_VERSION(%r8), %r9d
        jne     8b
        ret

/* Find the NUL-terminated key at %rdi in the command line.  %rax points past
 * it, or is 0. */
find_option:
        lea     SI_CMD_LINE(%rbx), %rdx
11:     cmpb    $0, (%rdx)
        je      14f
        xor     %ecx, %ecx
12:     mov     (%rdi,%rcx), %al
        test    %al, %al
        jz      13f
        cmp     (%rdx,%rcx), %al
        lea     1(%rcx), %rcx
        je      12b
        inc     %rdx
        jmp     11b
13:     lea     (%rdx,%rcx), %rax
        ret
14:     xor     %eax, %eax
        ret

/* The decimal number at %rsi, in %rax. */
parse_decimal:
        xor     %eax, %eax
15:     movzbl  (%rsi), %ecx
        sub     $'0', %ecx
        cmp     $9, %ecx
        ja      16f
        imul    $10, %rax
        add     %rcx, %rax
        inc     %rsi
        jmp     15b
16:     ret

/* Write the NUL-terminated text at %rsi to the console.  Our texts are far
 * shorter than the ring, so there is always room. */
print:
        lea     console(%rip), %rdi
        mov     RING_OUT_PROD(%rdi), %ecx
17:     lodsb
        test    %al, %al
        jz      18f
        mov     %ecx, %edx
        and     $2047, %edx
        mov     %al, RING_OUT(%rdi,%rdx)
        inc     %ecx
        jmp     17b
18:     mov     %ecx, RING_OUT_PROD(%rdi)
        mov     SI_CONSOLE_PORT(%rbx), %eax
        mov     %eax, send_port(%rip)
        mov     $EVTCHNOP_SEND, %edi
        lea     send_port(%rip), %rsi
        hypercall EVENT_CHANNEL_OP
        ret

        .section .rodata
key_end:        .asciz  "end="
key_after:      .asciz  "after="
text_up:        .asciz  "mini: up\r\n"
text_resumed:   .asciz  "mini: resumed\r\n"

        .data
        .balign 8
poll:           .quad   poll_port       /* struct sched_poll */
                .long   1, 0
poll_timeout:   .quad   0
deadline:       .quad   0               /* 0: none */
poll_port:      .long   0
send_port:      .long   0
reason:         .long   0
ending:         .byte   0

        .bss
        .balign 4096
        .globl  hypercall_page
hypercall_page: .skip   4096            /* filled in by Xen */
shared_info:    .skip   4096
console:        .skip   4096

        .section .note.Xen, "a", @note
        .macro  note_quad type, value
        .long   4, 8, \type
        .asciz  "Xen"
        .quad   \value
        .endm
        .macro  note_text type, text
        .long   4, 21f - 20f, \type
        .asciz  "Xen"
20:     .asciz  "\text"
21:     .balign 4
        .endm
        note_quad 1, start              /* entry */
        note_quad 2, hypercall_page
        note_quad 3, 0                  /* virtual base: address = pfn << 12 */
        note_text 5, "xen-3.0"
        note_text 6, "xlevent-mini"
        note_text 7, "1"
        note_text 8, "generic"
        note_text 9, "yes"              /* PAE */

        .section .note.GNU-stack, "", @progbits
