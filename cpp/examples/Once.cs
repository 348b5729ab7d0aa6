// libdefectrt from C#, by P/Invoke: one picture, one mask, one defect.
//
//     csc Once.cs        (or mcs Once.cs)
//     Once ENGINE
//
// The library has to be where the system's loader finds it: beside the program on Windows, in
// LD_LIBRARY_PATH or a system folder on Linux.
using System;
using System.Runtime.InteropServices;
using System.Text;

static class Once {
    const string Library = "defectrt";

    [StructLayout(LayoutKind.Sequential)]
    struct Image {
        public IntPtr data, stride;
        public uint width, height;
        public int format, depth;
    }

    [StructLayout(LayoutKind.Sequential)]
    struct Mask {
        public IntPtr data, stride;
    }

    // as far as it is used: the library takes what is left out as 0
    [StructLayout(LayoutKind.Sequential)]
    struct Request {
        public UIntPtr size;
        public Image image;
        public Mask mask;
        public ulong seed;
        public uint candidates;
        public IntPtr progress, user;
    }

    [DllImport(Library)] static extern int defectrt_engine_create(out IntPtr engine);
    [DllImport(Library)] static extern int defectrt_engine_open(IntPtr engine, byte[] directory, IntPtr options);
    [DllImport(Library)] static extern UIntPtr defectrt_engine_error(IntPtr engine, byte[] text, UIntPtr size);
    [DllImport(Library)] static extern void defectrt_engine_destroy(IntPtr engine);
    [DllImport(Library)] static extern int defectrt_session_create(IntPtr engine, IntPtr options, out IntPtr session);
    [DllImport(Library)] static extern void defectrt_session_destroy(IntPtr session);
    [DllImport(Library)] static extern int defectrt_submit(IntPtr session, ref Request request, int timeout, out IntPtr task);
    [DllImport(Library)] static extern int defectrt_task_wait(IntPtr task, int timeout);
    [DllImport(Library)] static extern UIntPtr defectrt_task_error(IntPtr task, byte[] text, UIntPtr size);
    [DllImport(Library)] static extern UIntPtr defectrt_task_record(IntPtr task, byte[] text, UIntPtr size);
    [DllImport(Library)] static extern void defectrt_task_release(IntPtr task);

    delegate UIntPtr Read(IntPtr handle, byte[] text, UIntPtr size);

    static string Text(Read read, IntPtr handle) {
        var text = new byte[1 + (int)read(handle, null, UIntPtr.Zero)];
        read(handle, text, (UIntPtr)text.Length);
        return Encoding.UTF8.GetString(text, 0, text.Length - 1);
    }

    static int Say(int status, string text) {
        Console.WriteLine(text);
        return status;
    }

    static int Main(string[] arguments) {
        IntPtr engine, session, task;
        defectrt_engine_create(out engine);
        int status = defectrt_engine_open(engine, Encoding.UTF8.GetBytes(arguments[0] + "\0"), IntPtr.Zero);
        if (status != 0) return Say(status, Text(defectrt_engine_error, engine));
        status = defectrt_session_create(engine, IntPtr.Zero, out session);
        if (status != 0) return Say(status, Text(defectrt_engine_error, engine));
        byte[] pixels = new byte[64 * 48], mask = new byte[64 * 48];
        for (int i = 0; i < pixels.Length; ++i) pixels[i] = (byte)(150 + i % 7);
        for (int y = 20; y < 30; ++y) for (int x = 20; x < 34; ++x) mask[64 * y + x] = 1;
        GCHandle grey = GCHandle.Alloc(pixels, GCHandleType.Pinned), where = GCHandle.Alloc(mask, GCHandleType.Pinned);
        var request = new Request { seed = 7 };
        request.size = (UIntPtr)Marshal.SizeOf(typeof(Request));
        request.image = new Image { data = grey.AddrOfPinnedObject(), width = 64, height = 48, depth = 8 };
        request.mask = new Mask { data = where.AddrOfPinnedObject() };
        status = defectrt_submit(session, ref request, -1, out task);
        grey.Free();  // it was copied
        where.Free();
        if (status == 0) status = defectrt_task_wait(task, -1);
        Console.WriteLine(status == 0 ? Text(defectrt_task_record, task) : Text(defectrt_task_error, task));
        defectrt_task_release(task);
        defectrt_session_destroy(session);
        defectrt_engine_destroy(engine);
        return status;
    }
}
