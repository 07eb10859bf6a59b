# A guest of 512 bytes: builds page tables, enters long mode, makes a few known accesses in a window, powers off.
#   as --64 -o guest.o guest.S && ld -Ttext 0x7c00 --oformat binary -o guest.img guest.o
        .globl  _start
        .code16
_start: cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %es
        cld
        mov     $0x1000, %di
        mov     $0x3000, %cx
        rep stosw                       # 0x1000 to 0x7000
        movw    $0x2003, 0x1000         # top table: low half ...
        movw    $0x2003, 0x1888         # ... its alias in the direct map, 0xffff888000000000 ...
        movw    $0x4003, 0x1c90         # ... and the vmalloc space, 0xffffc90000000000
        movw    $0x3003, 0x2000
        movw    $0x0183, 0x3000         # a global 2 MiB leaf
        movw    $0x5003, 0x4000
        movw    $0x6003, 0x5000
        movw    $0x8003, 0x6000         # 4 KiB leaves: two in a row, one elsewhere, one that is read-only
        movw    $0x9003, 0x6008
        movw    $0xb003, 0x6010
        movw    $0xc001, 0x6018
        mov     $0x1000, %eax
        mov     %eax, %cr3
        mov     $0xa0, %eax             # PAE, PGE
        mov     %eax, %cr4
        mov     $0xc0000080, %ecx       # EFER.LME
        rdmsr
        or      $0x100, %eax
        wrmsr
        lgdt    gdt_pointer
        mov     $0x80000001, %eax       # paging and protection
        mov     %eax, %cr0
        ljmp    $8, $long

        .code64
long:   .byte   0x0f, 0x1f, 0x80, 0x01, 0x52, 0x54, 0x4b        # open the window
        movabs  $0xffff888000000000 + high, %rax
        jmp     *%rax
high:   movabs  $0xffffc90000000000, %rbx
        mov     0x10(%rbx), %rcx
        mov     %cl, 0x1fff(%rbx)
        mov     %ecx, 0x2004(%rbx)
        mov     %cr3, %rax
        mov     %rax, %cr3
        incw    0x10(%rbx)
        mov     %cr4, %rax
        mov     %rax, %cr4
        invlpg  (%rbx)
        xor     %ecx, %ecx
1:      mov     0x100(%rbx,%rcx,8), %rdx
        inc     %ecx
        cmp     $1000, %ecx
        jne     1b
        mov     $low, %eax
        jmp     *%rax
low:    .byte   0x0f, 0x1f, 0x80, 0x42, 0x52, 0x54, 0x4b        # a mark of the guest's own
        .byte   0x0f, 0x1f, 0x80, 0x02, 0x52, 0x54, 0x4b        # close the window
        xor     %eax, %eax
        out     %al, $0xf4                                      # isa-debug-exit
        hlt

        .balign 8
gdt:    .quad   0, 0x00af9a000000ffff
gdt_pointer:
        .word   15
        .long   gdt
        .org    510
        .word   0xaa55
