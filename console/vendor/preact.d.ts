// What of preact.js the console uses.
export function h(type: any, props?: any, ...children: any[]): any;
export function render(tree: any, into: Element): void;
export const Fragment: any;
export function html(texts: TemplateStringsArray, ...values: any[]): any;
export function useState<T>(first: T | (() => T)): [T, (next: T | ((before: T) => T)) => void];
export function useEffect(effect: () => void | (() => void), inputs?: readonly unknown[]): void;
export function useLayoutEffect(effect: () => void | (() => void), inputs?: readonly unknown[]): void;
export function useRef<T>(first: T): { current: T };
export function useMemo<T>(make: () => T, inputs: readonly unknown[]): T;
export function useCallback<T extends (...given: any[]) => any>(callback: T, inputs: readonly unknown[]): T;
export function useReducer<S, A>(step: (state: S, action: A) => S, first: S): [S, (action: A) => void];
export function useId(): string;
